// Records on their way into a run, in memory of a bounded size: folded by key as they come (a hash table), or, without
// a fold, as they are. What is full is drained: written to a run in order, and empty again.
#pragma once
#include <atomic>
#include <cstdint>
#include <string>

#include "records/key.h"
#include "records/region.h"
#include "records/run.h"
#include "records/value.h"

namespace pycoll::records {

class Groups {
 public:
  // Never holds more than `bytes`, the order of what is drained included.
  Groups(Fold fold, Order order, size_t bytes);

  // Each returns false if there is no room: drain, and add it again. Which one is right is the fold's.
  bool add(const Key& key, uint64_t hash, Number x);
  bool add(const Key& key, uint64_t hash, uint64_t id);
  bool add(const Key& key, std::string_view value);  // without a fold

  // Fetches what add() will look at first, and then what that leads to.
  void prefetch(uint64_t hash) const { __builtin_prefetch(&slots()[hash & mask_]); }
  void prefetch_entry(uint64_t hash) const { __builtin_prefetch(arena_.data() + slots()[hash & mask_].entry * kUnit); }

  bool empty() const { return !count_; }
  size_t most_record() const;                              // bytes of key and value together
  void drain(Run& run, const std::atomic<bool>& stopped);  // raises once it is stopped

 private:
  // Places in the arena are counted in units; 0 is none.
  static constexpr size_t kUnit = 8;
  struct Slot {
    uint32_t hash, entry;
  };
  // In the arena, the key behind it.
  struct Entry {
    uint32_t key_bytes;
    uint8_t key_type;
    bool real;       // of a number
    bool unordered;  // of a set: behind a difference of 0 they begin anew
    union {
      int64_t whole;
      double value;
      struct {
        uint32_t first, last;
      } chunks;              // of a set
      uint32_t value_bytes;  // without a fold: the value lies behind the key
    };
    uint64_t id;  // the last of a set
  };
  struct Chunk {
    uint32_t next;
    uint16_t used, room;
  };

  Slot* slots() const { return reinterpret_cast<Slot*>(slots_.data()); }
  template <class T>
  T* at(uint32_t place) const {
    return reinterpret_cast<T*>(arena_.data() + place * kUnit);
  }
  char* key_of(Entry* entry) const { return reinterpret_cast<char*>(entry + 1); }
  uint32_t allocate(size_t bytes);  // 0: no room
  bool grow();
  Entry* find(const Key& key, uint64_t hash);  // makes it if it is new; nullptr: no room
  bool append(Entry& entry, uint64_t difference);
  void put_set(const Entry& entry, std::string& to) const;
  std::string_view value_of(Entry* entry, std::string& room) const;

  Fold fold_;
  Order order_;
  size_t bytes_, used_ = kUnit, count_ = 0;
  Region arena_, slots_;
  uint64_t mask_ = 0;
  bool is_new_ = false;  // what find() gave last
};

}  // namespace pycoll::records
