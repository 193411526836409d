#include "records/merge.h"

#include <algorithm>
#include <cstring>

namespace pycoll::records {

Merge::Merge(Fold fold, Order order, std::vector<Segments> sources, size_t buffer) : fold_(fold), order_(order) {
  sources_.reserve(sources.size());
  for (Segments& segments : sources) {
    const size_t bytes = segments.bytes();
    sources_.push_back({Reader(std::move(segments), std::clamp<size_t>(bytes, 64, buffer)), {}, 0});
    Source& source = sources_.back();
    if (!source.reader.next(source.record)) continue;
    source.token = token_of(order_, source.record.key);
    heap_.push_back(sources_.size() - 1);
  }
  for (size_t place = heap_.size() / 2; place-- > 0;) sink(place);
}

bool Merge::before(size_t a, size_t b) const {
  const Source &x = sources_[a], &y = sources_[b];
  if (x.token != y.token) return x.token < y.token;
  if (x.record.key == y.record.key) return a < b;
  return behind_token(x.record.key, y.record.key);
}

void Merge::sink(size_t place) {
  const size_t source = heap_[place];
  for (size_t child; (child = 2 * place + 1) < heap_.size(); place = child) {
    if (child + 1 < heap_.size() && before(heap_[child + 1], heap_[child])) ++child;
    if (!before(heap_[child], source)) break;
    heap_[place] = heap_[child];
  }
  heap_[place] = source;
}

// Replaces the record on top, which is of `source`, by the source's next one.
void Merge::advance(size_t source) {
  Source& from = sources_[source];
  read_ += from.record.key.bytes.size() + from.record.value.size() + 3;  // about what lengths take
  if (from.reader.next(from.record)) {
    from.token = token_of(order_, from.record.key);
  } else {
    heap_[0] = heap_.back();
    heap_.pop_back();
    if (heap_.empty()) return;
  }
  sink(0);
}

bool Merge::next(Record& record) {
  if (heap_.empty()) return false;
  const size_t first = heap_[0];
  const Record& top = sources_[first].record;
  key_ = top.key.bytes;
  value_ = top.value;
  const Key key{key_, top.key.type};
  const uint64_t token = sources_[first].token;
  advance(first);
  record = {key, value_};
  const auto again = [&] {
    return !heap_.empty() && sources_[heap_[0]].token == token && sources_[heap_[0]].record.key == key;
  };
  if (fold_ == Fold::none || !again()) return true;
  if (fold_ == Fold::set) {
    ids_.clear();
    ids_.add(value_);
    for (; again(); advance(heap_[0])) ids_.add(sources_[heap_[0]].record.value);
    value_.clear();
    ids_.put(value_);
  } else {
    Number sum = take_number(value_);
    for (; again(); advance(heap_[0])) fold_into(fold_, sum, take_number(sources_[heap_[0]].record.value));
    value_.clear();
    put_number(value_, sum);
  }
  record.value = value_;
  return true;
}

size_t Merge::fill(char* to, size_t bytes) {
  size_t filled = 0;
  while (true) {
    const size_t part = std::min(bytes - filled, stream_.size() - streamed_);
    std::memcpy(to + filled, stream_.data() + streamed_, part);
    filled += part;
    streamed_ += part;
    if (filled == bytes) return filled;
    stream_.clear();
    streamed_ = 0;
    Record record;
    if (!next(record)) return filled;
    put_record(stream_, record);
  }
}

}  // namespace pycoll::records
