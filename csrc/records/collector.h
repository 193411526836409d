// What a rank's map emits: into Groups, and from there into runs; those that become many are merged.
#pragma once
#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "records/groups.h"

namespace pycoll::records {

class Collector {
 public:
  Collector(Fold fold, Order order, size_t bytes, std::string folder);

  void add(const Key& key, Number x);
  void add(const Key& key, uint64_t id);
  void add(const Key& key, std::string_view value);
  // (word, 1) for each word of the text.
  void add_words(std::string_view text);
  // (word, position of its line) for each word; a line's position is that of its first byte, the text's being `first`.
  void add_positions(std::string_view text, uint64_t first);

  // What is left in memory becomes a run as well, and the memory free.
  void finish();
  // All runs become one: where so many cannot be read at once.
  void compact();
  const std::vector<std::unique_ptr<Run>>& runs() const { return runs_; }
  // Of all runs: bytes in each bucket, and what lies in some of them, or between two keys (see Run).
  std::array<uint64_t, kBuckets> bucket_bytes() const;
  std::vector<Segments> of_buckets(const std::vector<bool>& wanted) const;
  std::vector<Segments> between(const Key* from, const Key* to) const;
  uint64_t records() const { return records_; }  // added so far
  size_t spilled() const { return spilled_; }    // bytes written so far because memory was full

 private:
  static constexpr size_t kMostRuns = 64;  // of a level: then they become one of the next
  template <class Value>
  void add_hashed(const Key& key, uint64_t hash, const Value& value);
  template <class Value>
  void add_batch(std::string_view text, const Value& value);
  void drain();
  void merge_level(int level);
  void merge_from(size_t first, int level);

  Fold fold_;
  Order order_;
  std::string folder_;
  Groups groups_;
  std::vector<std::unique_ptr<Run>> runs_;
  uint64_t records_ = 0;
  size_t spilled_ = 0;
};

}  // namespace pycoll::records
