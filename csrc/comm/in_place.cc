// Collectives over arrays that peers can reach where they are: in symmetric memory, or in private memory that the
// kernel lets them read.
#include <cstring>

#include "comm/communicator.h"

namespace pycoll {
namespace {

// Where a single copy was found to be faster than stages, it is from here on: below, the kernel's work for it counts.
constexpr size_t kSingleCopyBytes = 2 << 20;

}  // namespace

void Communicator::add_region(uint32_t id, std::shared_ptr<Segment> segment, size_t stride) {
  PYCOLL_CHECK(id > 0 && stride * size_t(node_->size()) <= segment->bytes(), "region ", id, " of ", segment->bytes(),
               " bytes is too small for ", node_->size(), " parts of ", stride);
  const std::lock_guard lock(regions_mutex_);
  regions_[id] = {std::move(segment), stride};
}

void Communicator::release_region(uint32_t id) {
  const std::lock_guard lock(regions_mutex_);
  regions_.erase(id);
}

Communicator::Place Communicator::addresses_of(const Call& call) {
  return {0, 0, reinterpret_cast<uint64_t>(call.in.data), reinterpret_cast<uint64_t>(call.out.data)};
}

Communicator::Place Communicator::place_of(const Call& call) const {
  const std::lock_guard lock(regions_mutex_);
  const auto locate = [&](const std::byte* data, size_t bytes, uint32_t& id, uint64_t& at) {
    for (const auto& [candidate, region] : regions_) {
      const std::byte* const mine = region.segment->data() + size_t(node_->rank()) * region.stride;
      if (data < mine || data + bytes > mine + region.stride) continue;
      id = candidate;
      at = uint64_t(data - mine);
      return;
    }
  };
  Place place = addresses_of(call);
  if (call.in.count) locate(call.in.data, call.in.bytes(), place.in_region, place.in);
  if (call.out.count) locate(call.out.data, call.out.bytes(), place.out_region, place.out);
  return place;
}

// Without staging, if all ranks' arrays can be reached where they are; every rank decides alike, from what all showed
// on arrival.
bool Communicator::run_in_place(const Call& call, std::vector<Place> shown, Deadline deadline) {
  if (call.kind == Kind::alltoall && call.uneven)
    return false;  // where a peer's chunk for this rank begins is not known
  const bool from_root = call.kind == Kind::broadcast || call.kind == Kind::scatter;
  bool symmetric = true, none_symmetric = true;
  for (int peer = 0; peer < size(); ++peer) {
    if (from_root && peer != call.root) continue;
    const Place& place = shown[size_t(peer)];
    symmetric &= place.in_region && (call.kind != Kind::allreduce || place.out_region);
    none_symmetric &= !place.in_region && !place.out_region;
  }
  if (!symmetric && !none_symmetric) return false;  // of what is in a region only an offset was shown
  const bool single_copy = call.kind == Kind::allreduce || call.kind == Kind::reduce_scatter ||
                           call.kind == Kind::allgather || call.kind == Kind::broadcast;
  if (!symmetric && (!single_copy || !node_->single_copy() || contribution(call) < kSingleCopyBytes)) return false;

  std::vector<std::shared_ptr<Segment>> held;  // while they are read
  const auto resolve = [&](int peer, uint32_t id, uint64_t at) -> std::byte* {
    if (!symmetric) return reinterpret_cast<std::byte*>(at);
    const std::lock_guard lock(regions_mutex_);
    const auto region = regions_.find(id);
    if (region == regions_.end()) return nullptr;
    held.push_back(region->second.segment);
    return region->second.segment->data() + size_t(peer) * region->second.stride + at;
  };
  algo::Places places;
  for (int peer = 0; peer < size(); ++peer) {
    const Place& place = shown[size_t(peer)];
    places.in.push_back(resolve(peer, place.in_region, place.in));
    places.out.push_back(resolve(peer, place.out_region, place.out));
  }
  Net net(*world_, deadline);
  const auto reduction = reduction_of(call);
  if (symmetric) {
    switch (call.kind) {
      case Kind::allreduce: algo::symmetric_allreduce(net, places, call.in, reduction); break;
      case Kind::reduce: algo::symmetric_reduce(net, places, call.out, call.root, reduction); break;
      case Kind::reduce_scatter: algo::symmetric_reduce_scatter(net, places, call.out, call.layout, reduction); break;
      case Kind::allgather: algo::symmetric_allgather(net, places, call.out, call.layout); break;
      case Kind::gather: algo::symmetric_gather(net, places, call.out, call.root, call.layout); break;
      case Kind::scatter: algo::symmetric_scatter(net, places, call.out, call.root, call.layout); break;
      case Kind::alltoall: algo::symmetric_alltoall(net, places, call.out, call.layout); break;
      default: algo::symmetric_broadcast(net, places, call.out, call.root);
    }
  } else {
    switch (call.kind) {
      case Kind::allreduce: algo::single_copy_allreduce(net, places, call.in, call.out, reduction, scratch_); break;
      case Kind::reduce_scatter:
        algo::single_copy_reduce_scatter(net, places, call.in, call.out, call.layout, reduction, scratch_);
        break;
      case Kind::allgather: algo::single_copy_allgather(net, places, call.in, call.out, call.layout); break;
      default: algo::single_copy_broadcast(net, places, call.out, call.root);
    }
  }
  return true;
}

}  // namespace pycoll
