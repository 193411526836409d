#include "algo/select.h"

#include <algorithm>

#include "core/error.h"

namespace pycoll::algo {
namespace {

constexpr Algo kAll[] = {Algo::ring,     Algo::tree,   Algo::doubling,     Algo::halving,      Algo::circulant,
                         Algo::pairwise, Algo::direct, Algo::hierarchical, Algo::dissemination};

// Latency-bound below, bandwidth-bound above. Over messages, from docs/performance.md; a measured table replaces
// it.
constexpr size_t kSmall = 16 << 10, kMiddle = 1 << 20;

Algo by_default(const Question& q) {
  if (q.medium == Medium::shared) return Algo::direct;
  switch (q.kind) {
    case Kind::allreduce:
      if (q.nodes > 1 && q.nodes < q.ranks && q.bytes > kSmall) return Algo::hierarchical;
      return is_half(q.dtype) && q.bytes > kSmall ? Algo::pairwise : suited(q.bytes, q.ranks);
    case Kind::reduce_scatter:
      if (is_half(q.dtype)) return Algo::pairwise;
      return q.bytes <= kMiddle ? Algo::circulant : Algo::ring;
    case Kind::allgather: return q.bytes <= kMiddle ? Algo::circulant : Algo::ring;
    case Kind::broadcast:
    case Kind::reduce: return Algo::tree;
    case Kind::gather:
    case Kind::scatter: return q.bytes <= kSmall ? Algo::tree : Algo::pairwise;
    case Kind::alltoall: return Algo::pairwise;
    default: return Algo::dissemination;
  }
}

}  // namespace

Algo suited(size_t bytes, int ranks) {
  if (bytes <= kSmall) return Algo::doubling;
  if (bytes > kMiddle) return Algo::ring;
  return ranks == 2 ? Algo::doubling : Algo::circulant;  // of 2, doubling sends no more than others, and sooner
}

bool supports(Algo algo, Kind kind, Medium medium) {
  switch (algo) {
    case Algo::automatic: return true;
    case Algo::direct: return medium == Medium::shared;
    case Algo::ring:
    case Algo::circulant: return kind == Kind::allreduce || kind == Kind::reduce_scatter || kind == Kind::allgather;
    case Algo::doubling:
    case Algo::halving:
    case Algo::hierarchical: return kind == Kind::allreduce;
    case Algo::tree:
      return kind == Kind::allreduce || kind == Kind::broadcast || kind == Kind::reduce || kind == Kind::gather ||
             kind == Kind::scatter;
    case Algo::pairwise:
      return kind == Kind::allreduce || kind == Kind::reduce_scatter || kind == Kind::allgather ||
             kind == Kind::gather || kind == Kind::scatter || kind == Kind::alltoall;
    case Algo::dissemination: return kind == Kind::barrier;
  }
  return false;
}

bool rounds_once(Algo algo) {
  return algo == Algo::direct || algo == Algo::pairwise;
}

Algo parse_algo(std::string_view name) {
  if (name == name_of(Algo::automatic)) return Algo::automatic;
  for (const Algo algo : kAll)
    if (name_of(algo) == name) return algo;
  std::string known;
  for (const Algo algo : kAll) known += concat(", ", name_of(algo));
  throw InvalidArgument(concat("algo is \"", name, "\", wanted one of auto", known));
}

std::vector<std::string> names_for(Kind kind) {
  std::vector<std::string> names;
  for (const Algo algo : kAll)
    if (supports(algo, kind, Medium::shared)) names.emplace_back(name_of(algo));
  return names;
}

Table::Table(std::vector<Rule> rules) : rules_(std::move(rules)) {
  std::stable_sort(rules_.begin(), rules_.end(), [](const Rule& a, const Rule& b) { return a.bytes < b.bytes; });
}

Algo Table::choose(const Question& q) const {
  Algo best = by_default(q);
  for (const Rule& rule : rules_) {
    if (rule.bytes > q.bytes) break;
    if (rule.kind == q.kind && rule.medium == q.medium && rule.ranks == q.ranks &&
        supports(rule.algo, q.kind, q.medium))
      best = rule.algo;
  }
  return best;
}

}  // namespace pycoll::algo
