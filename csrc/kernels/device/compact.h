// Stream compaction: the elements of all tiles that are wanted, in order, in one pass.
//
// A tile learns what the tiles before it keep by decoupled look-back (D. Merrill, M. Garland, "Single-pass Parallel
// Prefix Scan with Decoupled Look-back", 2016): one word a tile, no atomic per element. Counts are below 2^31.
#pragma once
#include "kernels/device/pack.h"

namespace pycoll::kernels::device {

// How many elements are certain, and how many are ties, of which only the first few are wanted.
struct Counts {
  uint32_t certain, ties;
};
PYCOLL_DEVICE Counts operator+(Counts a, Counts b) {
  return {a.certain + b.certain, a.ties + b.ties};
}

// What a tile says to those behind it: nothing yet, what it has, or what it and all before it have.
enum class Said : uint32_t { nothing, own, all };

PYCOLL_DEVICE uint64_t status_of(Said said, Counts counts) {
  return uint64_t(said) << 62 | uint64_t(counts.certain) << 31 | counts.ties;
}
PYCOLL_DEVICE Said said(uint64_t status) {
  return Said(status >> 62);
}
PYCOLL_DEVICE Counts counts_of(uint64_t status) {
  return {uint32_t(status >> 31) & 0x7fffffffu, uint32_t(status) & 0x7fffffffu};
}

// Called by one warp: what tiles 0 to tile - 1 have. `status` is 0 before the kernel; tiles are begun in order.
template <class C>
PYCOLL_DEVICE Counts look_back(C& on, uint64_t* status, uint32_t tile, Counts own) {
  if (lane(on) == 0) on.store(status + tile, status_of(tile ? Said::own : Said::all, own));
  Counts before{};
  for (uint32_t end = tile; end > 0; end -= kWarp) {  // lane l looks at tile end - 1 - l
    const uint64_t none = status_of(Said::all, {});
    uint64_t seen = none;
    uint32_t silent, complete;
    for (;;) {
      if (lane(on) < end) seen = on.load(status + (end - 1 - lane(on)));
      silent = on.ballot(said(seen) == Said::nothing);
      complete = on.ballot(said(seen) == Said::all);
      const uint32_t nearer = complete ? (complete & (0u - complete)) - 1 : ~0u;  // lanes below the first complete one
      if ((silent & nearer) == 0) break;
      on.relax();
    }
    const uint32_t first = complete & (0u - complete);
    const bool counts = complete == 0 || (1u << lane(on)) <= first;
    const Counts mine = counts ? counts_of(seen) : Counts{};
    before = before + Counts{on.sum(mine.certain), on.sum(mine.ties)};
    if (complete) break;
  }
  if (lane(on) == 0 && tile) on.store(status + tile, status_of(Said::all, before + own));
  return before;
}

// Which elements are wanted: those above a size, then the first `ties` that are equal to it.
struct Rule {
  uint32_t above, ties;

  PYCOLL_DEVICE uint64_t places(Counts counts) const {
    return counts.certain + uint64_t(counts.ties < ties ? counts.ties : ties);
  }
};

// Shared memory of place_rows.
struct RowCounts {
  uint32_t of[kWarps * kRows];  // certain in the low half, ties in the high half
  Counts before, own;
};
static_assert(kWarps * kRows == kWarp && kTile < 1 << 16);

// This thread's elements in a tile: bit c of certain[r] and of ties[r] is of element c in row r.
struct Marks {
  uint32_t certain[kRows], ties[kRows];
};

// What the elements before this thread's row r have. Returns what this tile and all before it have.
template <class C>
PYCOLL_DEVICE Counts place_rows(C& on, uint64_t* status, uint32_t tile, const Marks& marks, Counts (&before)[kRows]) {
  constexpr uint32_t bits = 8;  // of a row's count in a word: at most 128
  RowCounts& rows = on.template shared<RowCounts>();
  uint32_t own[2] = {}, upto[2];
  PYCOLL_UNROLL
  for (uint32_t r = 0; r < kRows; ++r) {
    for (uint32_t c = 0; c < kPack; ++c) {
      own[0] += (marks.certain[r] >> c & 1u) << (bits * r);
      own[1] += (marks.ties[r] >> c & 1u) << (bits * r);
    }
  }
  PYCOLL_UNROLL
  for (uint32_t kind = 0; kind < 2; ++kind) upto[kind] = scan_warp(on, own[kind]);
  PYCOLL_UNROLL
  for (uint32_t r = 0; r < kRows; ++r) {
    if (lane(on) == kWarp - 1)
      rows.of[warp(on) * kRows + r] = (upto[0] >> (bits * r) & 0xffu) | (upto[1] >> (bits * r) & 0xffu) << 16;
  }
  on.sync();
  if (warp(on) == 0) {
    const uint32_t count = rows.of[lane(on)], sum = scan_warp(on, count), all = on.shuffle(sum, kWarp - 1);
    const Counts total{all & 0xffffu, all >> 16};
    const Counts earlier = look_back(on, status, tile, total);
    rows.of[lane(on)] = sum - count;
    if (lane(on) == 0) rows.before = earlier, rows.own = total;
  }
  on.sync();
  PYCOLL_UNROLL
  for (uint32_t r = 0; r < kRows; ++r) {
    const uint32_t row = rows.of[warp(on) * kRows + r];
    before[r] = rows.before + Counts{(row & 0xffffu) + ((upto[0] - own[0]) >> (bits * r) & 0xffu),
                                     (row >> 16) + ((upto[1] - own[1]) >> (bits * r) & 0xffu)};
  }
  const Counts all = rows.before + rows.own;
  on.sync();
  return all;
}

// The next tile that no block has begun; `next` is 0 before the kernel.
template <class C>
PYCOLL_DEVICE uint32_t next_tile(C& on, uint32_t* next) {
  struct Ticket {
    uint32_t tile;
  };
  Ticket& ticket = on.template shared<Ticket>();
  if (on.thread() == 0) ticket.tile = on.add(next, 1);
  on.sync();
  const uint32_t tile = ticket.tile;
  on.sync();
  return tile;
}

}  // namespace pycoll::kernels::device
