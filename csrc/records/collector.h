// What a rank's map emits: into Groups, and from there into runs; those that become many are merged.
#pragma once
#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "records/groups.h"
#include "records/kinds.h"

namespace pycoll::records {

class Collector {
 public:
  // `around` is given what takes long, and calls it: where a lock is to be released for that time.
  using Around = std::function<void(const std::function<void()>&)>;
  Collector(
      Fold fold, Order order, size_t bytes, std::string folder,
      Around around = [](const std::function<void()>& work) { work(); });

  // Each raises InvalidArgument for a key of another type than the first one's.
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
  // From another thread: what is under way, and all that comes, ends with an Error as soon as it is noticed.
  void stop() { stopped_ = true; }
  const std::vector<std::unique_ptr<Run>>& runs() const { return runs_; }
  // Of all runs: bytes in each bucket, and what lies in some of them, or between two keys (see Run).
  std::array<uint64_t, kBuckets> bucket_bytes() const;
  std::vector<Segments> of_buckets(const std::vector<bool>& wanted) const;
  std::vector<Segments> between(const Key* from, const Key* to) const;
  uint64_t records() const { return records_; }  // added so far
  size_t spilled() const { return spilled_; }    // bytes written so far because memory was full
  const Kinds& kinds() const { return kinds_; }  // of what was added

 private:
  static constexpr size_t kMostRuns = 64;  // of a level: then they become one of the next
  template <class Value>
  void add_hashed(const Key& key, uint64_t hash, const Value& value);
  template <class Value>
  void add_batch(std::string_view text, const Value& value);
  void drain();
  void merge_level(int level);
  void merge_from(size_t first, int level);
  size_t end_of_merge(size_t first) const;

  Fold fold_;
  Order order_;
  size_t bytes_;
  std::string folder_;
  Around around_;
  Groups groups_;
  Kinds kinds_;
  int key_type_ = -1;  // of the first key
  std::atomic<bool> stopped_ = false;
  std::vector<std::unique_ptr<Run>> runs_;
  uint64_t records_ = 0;
  size_t spilled_ = 0;
};

}  // namespace pycoll::records
