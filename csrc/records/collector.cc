#include "records/collector.h"

#include <algorithm>

#include "core/error.h"
#include "records/merge.h"
#include "records/words.h"

namespace pycoll::records {

Collector::Collector(Fold fold, Order order, size_t bytes, std::string folder, Around around)
    : fold_(fold),
      order_(order),
      bytes_(bytes),
      folder_(std::move(folder)),
      around_(std::move(around)),
      groups_(fold, order, bytes) {}

void Collector::drain() {
  auto run = std::make_unique<Run>(order_, folder_);
  groups_.drain(*run, stopped_);
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

// Runs from `first` on become one; fewer at once where their largest records would not fit beside each other.
// Neighbours are merged, in their place: values of a key stay in the order in which they came.
void Collector::merge_from(size_t first, int level) {
  while (runs_.size() - first > 1) {
    for (size_t begin = first; begin < runs_.size(); ++begin) {
      const size_t end = end_of_merge(begin);
      if (end - begin == 1) break;
      std::vector<Segments> sources;
      for (size_t i = begin; i < end; ++i) sources.push_back(runs_[i]->all());
      auto merged = std::make_unique<Run>(order_, folder_);
      Merge merge(fold_, order_, std::move(sources), 32 << 10);
      for (Record record; merge.next(record);) {
        PYCOLL_CHECK_AS(Error, !stopped_, "mapreduce: stopped");
        merged->add(token_of(order_, record.key), record);
      }
      merged->finish();
      merged->level = level;
      spilled_ += merged->bytes();
      runs_[begin] = std::move(merged);
      runs_.erase(runs_.begin() + std::ptrdiff_t(begin) + 1, runs_.begin() + std::ptrdiff_t(end));
    }
  }
}

// How far runs from `first` on can be merged at once. Sets are the exception: what they are merged to has them all.
size_t Collector::end_of_merge(size_t first) const {
  size_t end = first, bytes = 0;
  for (; end < runs_.size(); ++end) {
    bytes += runs_[end]->all().largest;
    if (bytes <= bytes_ || fold_ == Fold::set) continue;
    PYCOLL_CHECK(end - first != 1, "mapreduce: two records of ", bytes, " bytes together cannot be merged in ", bytes_,
                 " bytes, wanted more memory=");
    break;
  }
  return end;
}

void Collector::compact() {
  if (runs_.size() > 1) merge_from(0, 0);
}

template <class Value>
void Collector::add_hashed(const Key& key, uint64_t hash, const Value& value) {
  ++records_;
  if (key_type_ < 0) key_type_ = int(key.type);
  PYCOLL_CHECK(int(key.type) == key_type_, "mapreduce: got a key of type ", name_of(key.type), " behind one of type ",
               name_of(KeyType(key_type_)), ", wanted keys of one type in a job");
  if constexpr (std::is_same_v<Value, Number>) kinds_.add(key.type, value.real ? 'f' : 'i');
  if constexpr (std::is_same_v<Value, uint64_t>) kinds_.add(key.type, 'd');
  if constexpr (std::is_same_v<Value, std::string_view>) kinds_.add(key.type, value[0]);
  const auto try_to = [&] {
    if constexpr (std::is_same_v<Value, std::string_view>)
      return groups_.add(key, value);
    else
      return groups_.add(key, hash, value);
  };
  if (try_to()) return;
  if (!groups_.empty()) around_([&] { drain(); });
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
