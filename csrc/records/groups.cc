#include "records/groups.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "records/varint.h"

namespace pycoll::records {
namespace {

constexpr size_t kFirstSlots = 1 << 12;
constexpr size_t kMostChunk = 1 << 10;

struct Place {  // what is sorted to drain
  uint64_t token;
  uint32_t entry;
};

}  // namespace

Groups::Groups(Fold fold, Order order, size_t bytes)
    : fold_(fold), order_(order), bytes_(std::min(bytes, size_t{UINT32_MAX} * kUnit)), arena_(bytes_) {
  if (fold == Fold::none) return;
  slots_ = Region(kFirstSlots * sizeof(Slot));
  mask_ = kFirstSlots - 1;
}

size_t Groups::most_record() const {
  return std::min<size_t>(bytes_ - slots_.bytes() - sizeof(Entry) - sizeof(Place) - 4 * kUnit, UINT32_MAX / 2);
}

// What is used, slots, and the order to drain in must fit together.
uint32_t Groups::allocate(size_t bytes) {
  const size_t units = (bytes + kUnit - 1) / kUnit * kUnit;
  if (used_ + units + slots_.bytes() + (count_ + 1) * sizeof(Place) > bytes_) return 0;
  const size_t place = used_;
  used_ += units;
  return uint32_t(place / kUnit);
}

// Twice as many slots, if old and new ones fit.
bool Groups::grow() {
  if (used_ + 3 * slots_.bytes() + count_ * sizeof(Place) > bytes_) return false;
  Region larger(2 * slots_.bytes());
  auto* to = reinterpret_cast<Slot*>(larger.data());
  const uint64_t mask = 2 * mask_ + 1;
  for (uint64_t i = 0; i <= mask_; ++i) {
    const Slot slot = slots()[i];
    if (!slot.entry) continue;
    uint64_t j = slot.hash & mask;
    while (to[j].entry) j = (j + 1) & mask;
    to[j] = slot;
  }
  slots_ = std::move(larger);
  mask_ = mask;
  return true;
}

Groups::Entry* Groups::find(const Key& key, uint64_t hash) {
  uint64_t i = hash & mask_;
  for (; slots()[i].entry; i = (i + 1) & mask_) {
    if (slots()[i].hash != uint32_t(hash)) continue;
    auto* entry = at<Entry>(slots()[i].entry);
    if (entry->key_bytes == key.bytes.size() && entry->key_type == uint8_t(key.type) &&
        !std::memcmp(key_of(entry), key.bytes.data(), key.bytes.size())) {
      is_new_ = false;
      return entry;
    }
  }
  if (2 * (count_ + 1) > mask_) {
    if (mask_ >= UINT32_MAX / 2 || !grow()) return nullptr;
    return find(key, hash);
  }
  const uint32_t place = allocate(sizeof(Entry) + key.bytes.size());
  if (!place) return nullptr;
  slots()[i] = {uint32_t(hash), place};
  ++count_;
  auto* entry = at<Entry>(place);
  *entry = Entry{};
  entry->key_bytes = uint32_t(key.bytes.size());
  entry->key_type = uint8_t(key.type);
  std::memcpy(key_of(entry), key.bytes.data(), key.bytes.size());
  is_new_ = true;
  return entry;
}

bool Groups::add(const Key& key, uint64_t hash, Number x) {
  Entry* entry = find(key, hash);
  if (!entry) return false;
  Number sum = x;
  if (!is_new_) {
    sum = entry->real ? Number::of(entry->value) : Number::of(entry->whole);
    fold_into(fold_, sum, x);
  }
  entry->real = sum.real;
  entry->whole = sum.whole;
  return true;
}

// A chunk is twice as large as the one before it.
bool Groups::append(Entry& entry, uint64_t difference) {
  Chunk* chunk = entry.chunks.last ? at<Chunk>(entry.chunks.last) : nullptr;
  char bytes[kMostVarint];
  const auto count = size_t(put_varint(bytes, difference) - bytes);
  if (!chunk || size_t(chunk->room - chunk->used) < count) {
    const size_t room = chunk ? std::min<size_t>(2 * chunk->room + sizeof(Chunk), kMostChunk - sizeof(Chunk)) : 16;
    const uint32_t place = allocate(sizeof(Chunk) + room);
    if (!place) return false;
    (chunk ? chunk->next : entry.chunks.first) = place;
    entry.chunks.last = place;
    chunk = at<Chunk>(place);
    *chunk = {0, 0, uint16_t(room)};
  }
  std::memcpy(reinterpret_cast<char*>(chunk + 1) + chunk->used, bytes, count);
  chunk->used = uint16_t(chunk->used + count);
  return true;
}

bool Groups::add(const Key& key, uint64_t hash, uint64_t id) {
  Entry* entry = find(key, hash);
  if (!entry) return false;
  if (is_new_) entry->id = ~uint64_t{0};
  if (entry->chunks.last && id <= entry->id) {
    if (id == entry->id) return true;
    if (!append(*entry, 0)) return false;
    entry->unordered = true;
    entry->id = ~uint64_t{0};
  }
  if (!append(*entry, id - entry->id)) return false;
  entry->id = id;
  return true;
}

bool Groups::add(const Key& key, std::string_view value) {
  const uint32_t place = allocate(sizeof(Entry) + key.bytes.size() + value.size());
  if (!place) return false;
  auto* entry = at<Entry>(place);
  *entry = Entry{};
  entry->key_bytes = uint32_t(key.bytes.size());
  entry->key_type = uint8_t(key.type);
  entry->value_bytes = uint32_t(value.size());
  std::memcpy(key_of(entry), key.bytes.data(), key.bytes.size());
  std::memcpy(key_of(entry) + key.bytes.size(), value.data(), value.size());
  ++count_;
  return true;
}

std::string_view Groups::value_of(Entry* entry, std::string& room) const {
  if (fold_ == Fold::none) return {key_of(entry) + entry->key_bytes, entry->value_bytes};
  room.clear();
  if (fold_ == Fold::set)
    put_set(*entry, room);
  else
    put_number(room, entry->real ? Number::of(entry->value) : Number::of(entry->whole));
  return room;
}

void Groups::put_set(const Entry& entry, std::string& to) const {
  std::string differences;
  for (uint32_t place = entry.chunks.first; place; place = at<Chunk>(place)->next)
    differences.append(reinterpret_cast<char*>(at<Chunk>(place) + 1), at<Chunk>(place)->used);
  if (!entry.unordered) {
    put_set_of(to, entry.id, differences);
    return;
  }
  std::vector<uint64_t> ids;
  uint64_t id = ~uint64_t{0};
  const char* p = differences.data();
  for (const char* end = p + differences.size(); p < end;) {
    const uint64_t difference = take_varint(p, end);
    if (difference)
      ids.push_back(id += difference);
    else
      id = ~uint64_t{0};
  }
  std::sort(ids.begin(), ids.end());
  put_set_of(to, ids);
}

void Groups::drain(Run& run, const std::atomic<bool>& stopped) {
  const Region order(count_ * sizeof(Place));
  auto* places = reinterpret_cast<Place*>(order.data());
  const auto key = [&](const Place& place) {
    auto* entry = at<Entry>(place.entry);
    return Key{{key_of(entry), entry->key_bytes}, KeyType(entry->key_type)};
  };
  size_t count = 0;
  const auto take = [&](uint32_t entry) {
    places[count].entry = entry;
    places[count].token = token_of(order_, key(places[count]));
    ++count;
  };
  if (fold_ == Fold::none) {
    for (size_t place = kUnit; place < used_;) {
      const auto* entry = at<Entry>(uint32_t(place / kUnit));
      take(uint32_t(place / kUnit));
      place += (sizeof(Entry) + entry->key_bytes + entry->value_bytes + kUnit - 1) / kUnit * kUnit;
    }
  } else {
    for (uint64_t i = 0; i <= mask_; ++i)
      if (slots()[i].entry) take(slots()[i].entry);
  }
  std::sort(places, places + count, [&](const Place& a, const Place& b) {
    if (a.token != b.token) return a.token < b.token;
    const Key x = key(a), y = key(b);
    return x == y ? a.entry < b.entry : behind_token(x, y);  // values of a key in the order in which they came
  });
  std::string room;
  for (size_t i = 0; i < count; ++i) {
    PYCOLL_CHECK_AS(Error, !stopped, "mapreduce: stopped");
    run.add(places[i].token, {key(places[i]), value_of(at<Entry>(places[i].entry), room)});
  }
  run.finish();
  used_ = kUnit;
  count_ = 0;
  arena_.clear();
  if (fold_ == Fold::none) return;
  slots_ = Region(kFirstSlots * sizeof(Slot));
  mask_ = kFirstSlots - 1;
}

}  // namespace pycoll::records
