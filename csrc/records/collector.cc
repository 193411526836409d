#include "records/collector.h"

#include <algorithm>

#include "core/error.h"
#include "records/merge.h"
#include "records/words.h"

namespace pycoll::records {

Collector::Collector(Fold fold, Order order, size_t bytes, std::string folder)
    : fold_(fold), order_(order), folder_(std::move(folder)), groups_(fold, order, bytes) {}

void Collector::drain() {
  auto run = std::make_unique<Run>(order_, folder_);
  groups_.drain(*run);
  spilled_ += run->bytes();
  runs_.push_back(std::move(run));
  merge_level(0);
}

// Runs of a level are the newest ones, since they are merged once they are many.
void Collector::merge_level(int level) {
  const auto of_level = [&](const auto& run) { return run->level == level; };
  if (std::count_if(runs_.begin(), runs_.end(), of_level) < std::ptrdiff_t(kMostRuns)) return;
  merge_from(size_t(std::find_if(runs_.begin(), runs_.end(), of_level) - runs_.begin()), level + 1);
  merge_level(level + 1);
}

void Collector::merge_from(size_t first, int level) {
  std::vector<Segments> sources;
  for (size_t i = first; i < runs_.size(); ++i) sources.push_back(runs_[i]->all());
  auto merged = std::make_unique<Run>(order_, folder_);
  Merge merge(fold_, order_, std::move(sources), 32 << 10);
  for (Record record; merge.next(record);) merged->add(token_of(order_, record.key), record);
  merged->finish();
  merged->level = level;
  spilled_ += merged->bytes();
  runs_.resize(first);
  runs_.push_back(std::move(merged));
}

void Collector::compact() {
  if (runs_.size() > 1) merge_from(0, 0);
}

template <class Value>
void Collector::add_hashed(const Key& key, uint64_t hash, const Value& value) {
  ++records_;
  const auto try_to = [&] {
    if constexpr (std::is_same_v<Value, std::string_view>)
      return groups_.add(key, value);
    else
      return groups_.add(key, hash, value);
  };
  if (try_to()) return;
  if (!groups_.empty()) drain();
  PYCOLL_CHECK(try_to(), "mapreduce: a record of ", key.bytes.size(),
               " bytes of key does not fit into the memory for records, at most ", groups_.most_record(), " bytes");
}

void Collector::add(const Key& key, Number x) {
  add_hashed(key, hash_of(key), x);
}
void Collector::add(const Key& key, uint64_t id) {
  add_hashed(key, hash_of(key), id);
}
void Collector::add(const Key& key, std::string_view value) {
  add_hashed(key, 0, value);
}

// Words are looked up a batch at a time, so that the memory of the table is fetched for many of them at once.
template <class Value>
void Collector::add_batch(std::string_view text, const Value& value) {
  constexpr size_t kBatch = 32;
  struct {
    Key key;
    uint64_t hash;
  } batch[kBatch];
  size_t count = 0;
  const auto flush = [&] {
    for (size_t i = 0; i < count; ++i) groups_.prefetch_entry(batch[i].hash);
    for (size_t i = 0; i < count; ++i) add_hashed(batch[i].key, batch[i].hash, value);
    count = 0;
  };
  for_words(text, [&](std::string_view word) {
    const Key key{word, KeyType::text};
    batch[count] = {key, hash_of(key)};
    groups_.prefetch(batch[count].hash);
    if (++count == kBatch) flush();
  });
  flush();
}

void Collector::add_words(std::string_view text) {
  PYCOLL_CHECK(folds_numbers(fold_), "mapreduce: words are counted, so the fold is sum, min or max");
  add_batch(text, Number::of(int64_t{1}));
}

void Collector::add_positions(std::string_view text, uint64_t first) {
  PYCOLL_CHECK(fold_ == Fold::set, "mapreduce: positions are collected, so the fold is set");
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    add_batch(text.substr(begin, end - begin), first + begin);
    begin = end + 1;
  }
}

void Collector::finish() {
  if (!groups_.empty()) {
    const size_t before = spilled_;
    drain();
    if (runs_.size() == 1 && before == 0) spilled_ = 0;  // it never was full
  }
  groups_ = Groups(fold_, order_, 0);
}

std::array<uint64_t, kBuckets> Collector::bucket_bytes() const {
  std::array<uint64_t, kBuckets> sum{};
  for (const auto& run : runs_) {
    const auto bytes = run->bucket_bytes();
    for (size_t i = 0; i < kBuckets; ++i) sum[i] += bytes[i];
  }
  return sum;
}

std::vector<Segments> Collector::of_buckets(const std::vector<bool>& wanted) const {
  PYCOLL_CHECK(wanted.size() == size_t(kBuckets), "mapreduce: got ", wanted.size(), " buckets, wanted ", kBuckets);
  std::vector<Segments> parts;
  for (const auto& run : runs_) parts.push_back(run->buckets(wanted));
  return parts;
}

std::vector<Segments> Collector::between(const Key* from, const Key* to) const {
  std::vector<Segments> parts;
  for (const auto& run : runs_) parts.push_back(run->between(from, to));
  return parts;
}

}  // namespace pycoll::records
