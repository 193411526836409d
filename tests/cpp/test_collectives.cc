// Every collective x algorithm x element type x operator x count on threads, against an oracle that never communicates.
//
// Inputs are small integers (powers of i for complex products), so that every sum and product is exact in every type
// and every order: results are compared for equality, avg too, since one correctly rounded division is left. Where
// rounding matters, test_rounding below derives its bound. PYCOLL_TEST_QUICK=1 does fewer ranks; PYCOLL_TEST_FULL=1
// does 1e6 elements for every combination, which takes hours.
#include <complex>
#include <cstdlib>
#include <cstring>
#include <random>

#include "check.h"
#include "comm/lay_out.h"
#include "kernels/reduce.h"
#include "threads.h"

namespace {

using namespace pycoll;
using threads::Shape;
using Value = std::complex<double>;

bool flag(const char* name) {
  const char* const text = std::getenv(name);
  return text && *text == '1';
}

// Encoding and decoding of one element. Halves go through the kernels' conversions, which test_reduce proves.
void put(Buffer x, size_t i, Value v) {
  std::byte* const at = x.at(i);
  const auto as = [&](auto zero) {
    const decltype(zero) typed = decltype(zero)(v.real());
    std::memcpy(at, &typed, sizeof typed);
  };
  switch (x.dtype) {
    case DType::f16:
    case DType::bf16: {
      const float f = float(v.real());
      kernels::narrow_into({at, 1, x.dtype}, &f);
      break;
    }
    case DType::f32: as(float{}); break;
    case DType::f64: as(double{}); break;
    case DType::i8: as(int8_t{}); break;
    case DType::i16: as(int16_t{}); break;
    case DType::i32: as(int32_t{}); break;
    case DType::i64: as(int64_t{}); break;
    case DType::u8: as(uint8_t{}); break;
    case DType::u16: as(uint16_t{}); break;
    case DType::u32: as(uint32_t{}); break;
    case DType::u64: as(uint64_t{}); break;
    case DType::boolean: *at = std::byte(v.real() != 0); break;
    case DType::c64: {
      const std::complex<float> c(v);
      std::memcpy(at, &c, sizeof c);
      break;
    }
    case DType::c128: std::memcpy(at, &v, sizeof v); break;
  }
}

struct Array {
  std::vector<std::byte> bytes;
  Buffer buffer;
  Array(size_t count, DType dtype) : bytes(count * size_of(dtype) + 1), buffer{bytes.data(), count, dtype} {}
  Array(Array&&) = default;  // a copy's buffer would be the original's
};

// What rank `rank` puts in at element i.
Value input(int rank, size_t i, DType dtype, ReduceOp op) {
  const unsigned k = unsigned(size_t(rank) * 7 + i * 3 + i / 5);
  if (dtype == DType::boolean)
    return double(op == ReduceOp::prod || op == ReduceOp::min || op == ReduceOp::band ? k % 9 != 0 : k % 9 == 0);
  if (op == ReduceOp::prod) {
    constexpr Value turns[4] = {{1, 0}, {0, 1}, {-1, 0}, {0, -1}};
    if (is_complex(dtype)) return turns[k % 4];
    return k % 8 == 0 ? 2.0 : 1.0;  // at most 2^3 over 17 ranks, give or take
  }
  if (is_complex(dtype)) return {double(k % 4), double(k % 3)};
  return double(k % 4 + (op == ReduceOp::avg ? 1 : 0));
}

constexpr double kFactor = 0.5;

Value expected(int ranks, size_t i, DType dtype, ReduceOp op) {
  if (dtype == DType::boolean) {
    bool any = false, all = true, odd = false;
    for (int r = 0; r < ranks; ++r) {
      const bool b = input(r, i, dtype, op).real() != 0;
      any |= b, all &= b, odd ^= b;
    }
    const bool conjunctive = op == ReduceOp::prod || op == ReduceOp::min || op == ReduceOp::band;
    return double(op == ReduceOp::bxor ? odd : conjunctive ? all : any);
  }
  Value acc = input(0, i, dtype, op);
  for (int r = 1; r < ranks; ++r) {
    const Value v = input(r, i, dtype, op);
    switch (op) {
      case ReduceOp::sum:
      case ReduceOp::avg:
      case ReduceOp::premul_sum: acc += v; break;
      case ReduceOp::min: acc = std::min(acc.real(), v.real()); break;
      case ReduceOp::max: acc = std::max(acc.real(), v.real()); break;
      case ReduceOp::prod: acc *= v; break;
      case ReduceOp::band: acc = double(int64_t(acc.real()) & int64_t(v.real())); break;
      case ReduceOp::bor: acc = double(int64_t(acc.real()) | int64_t(v.real())); break;
      case ReduceOp::bxor: acc = double(int64_t(acc.real()) ^ int64_t(v.real())); break;
    }
  }
  if (op == ReduceOp::premul_sum) return acc * kFactor;
  if (op != ReduceOp::avg) return acc;
  if (is_integer(dtype)) return double(int64_t(acc.real()) / ranks);
  if (dtype == DType::f64 || dtype == DType::c128) return {acc.real() / ranks, acc.imag() / ranks};
  // The division in the type's own precision (f32 for halves), as the kernels do it.
  return {double(float(acc.real()) / float(ranks)), double(float(acc.imag()) / float(ranks))};
}

// Equal as numbers: the sign of a zero in a complex product is nobody's business.
bool same(ConstBuffer a, ConstBuffer b) {
  if (a.count != b.count) return false;
  if (!a.count || std::memcmp(a.data, b.data, a.bytes()) == 0) return true;
  if (!is_complex(a.dtype)) return false;
  const size_t parts = 2 * a.count;
  for (size_t i = 0; i < parts; ++i) {
    const bool equal = a.dtype == DType::c64
                           ? reinterpret_cast<const float*>(a.data)[i] == reinterpret_cast<const float*>(b.data)[i]
                           : reinterpret_cast<const double*>(a.data)[i] == reinterpret_cast<const double*>(b.data)[i];
    if (!equal) return false;
  }
  return true;
}

struct Job {
  Kind kind;
  Algo algo;
  DType dtype;
  ReduceOp op;
  size_t count;  // of a rank's chunk, or of the array
  bool uneven, in_place;

  std::string name() const {
    return concat(name_of(kind), " ", name_of(algo), " ", name_of(dtype), "[", count, "] ", name_of(op),
                  uneven ? " uneven" : "", in_place ? " in place" : "");
  }
};

// Uneven chunks: some larger, some empty.
std::vector<size_t> chunks(int ranks, const Job& job) {
  std::vector<size_t> counts(size_t(ranks), job.count);
  if (job.uneven)
    for (size_t r = 0; r < counts.size(); ++r) counts[r] = r % 3 == 2 ? 0 : job.count + r;
  return counts;
}

// alltoall, uneven: what rank `from` sends to rank `to`.
size_t pair(const Job& job, int from, int to) {
  return job.uneven ? (size_t(from) * 3 + size_t(to) * 5 + job.count) % 11 : job.count;
}

// What the ranks put in, and its reduction, of one element type and operator. Computed once for all jobs with these:
// how many elements a job takes does not change the first of them.
struct Oracle {
  std::vector<Array> inputs;  // of each rank
  Array reduced;

  Oracle(int ranks, size_t count, DType dtype, ReduceOp op) : reduced(is_defined(op, dtype) ? count : 0, dtype) {
    for (int rank = 0; rank < ranks; ++rank) {
      inputs.emplace_back(count, dtype);
      for (size_t i = 0; i < count; ++i) put(inputs.back().buffer, i, input(rank, i, dtype, op));
    }
    for (size_t i = 0; i < reduced.buffer.count; ++i) put(reduced.buffer, i, expected(ranks, i, dtype, op));
  }
  ConstBuffer input_of(int rank, Range range) const { return inputs[size_t(rank)].buffer[range]; }
  ConstBuffer reduction(Range range) const { return reduced.buffer[range]; }
};

// Of the longest array that a rank has in this job.
size_t elements(int ranks, const Job& job) {
  if (job.kind == Kind::allreduce || job.kind == Kind::reduce || job.kind == Kind::broadcast) return job.count;
  if (job.kind == Kind::alltoall && job.uneven) return 11 * size_t(ranks);
  return total_of(layout_of(chunks(ranks, job)));
}

void copy(Buffer to, ConstBuffer from) {
  if (from.count) std::memcpy(to.data, from.data, from.bytes());
}

// Runs one job on one rank; throws where the result is not the oracle's.
void run_job(Communicator& comm, const Job& job, const Oracle& oracle) {
  const int rank = comm.rank(), ranks = comm.size(), root = int(job.count + 1) % ranks;
  const std::vector<size_t> counts = chunks(ranks, job);
  const Layout layout = layout_of(counts);
  const size_t total = total_of(layout), mine = counts[size_t(rank)];
  Call call;
  call.kind = job.kind;
  call.algo = job.algo;
  call.op = job.op;
  call.factor = kFactor;
  call.root = rooted(job.kind) ? root : 0;
  std::optional<std::vector<size_t>> given, received;
  if (job.uneven) given = counts;

  size_t in_count = job.count, out_count = job.count;
  if (job.kind == Kind::barrier) in_count = out_count = 0;
  if (job.kind == Kind::reduce_scatter) in_count = total, out_count = mine;
  if (job.kind == Kind::allgather) in_count = mine, out_count = total;
  if (job.kind == Kind::gather) in_count = mine, out_count = rank == root ? total : 0;
  if (job.kind == Kind::scatter) in_count = rank == root ? total : 0, out_count = mine;
  if (job.kind == Kind::reduce && rank != root) out_count = 0;
  if (job.kind == Kind::alltoall) {
    std::vector<size_t> to, from;
    in_count = out_count = 0;
    for (int peer = 0; peer < ranks; ++peer) {
      to.push_back(pair(job, rank, peer)), from.push_back(pair(job, peer, rank));
      in_count += to.back(), out_count += from.back();
    }
    if (job.uneven) given = to, received = from;
  }
  const bool joins = job.kind == Kind::allgather || job.kind == Kind::gather || job.kind == Kind::alltoall;
  Array in(in_count, job.dtype), out(out_count, job.dtype), joined(joins ? out_count : 0, job.dtype);
  const ConstBuffer given_in = oracle.input_of(rank, {0, in_count});
  copy(in.buffer, given_in);

  ConstBuffer wanted = joined.buffer;
  switch (job.kind) {
    case Kind::allreduce:
    case Kind::reduce: wanted = oracle.reduction({0, out_count}); break;
    case Kind::reduce_scatter: wanted = oracle.reduction(layout[size_t(rank)]); break;
    case Kind::broadcast: wanted = oracle.input_of(root, {0, out_count}); break;
    case Kind::allgather:
    case Kind::gather:
      if (out_count)
        for (int peer = 0; peer < ranks; ++peer)
          copy(joined.buffer[layout[size_t(peer)]], oracle.input_of(peer, {0, counts[size_t(peer)]}));
      break;
    case Kind::scatter: wanted = oracle.input_of(root, layout[size_t(rank)]); break;
    case Kind::alltoall: {
      size_t at = 0;
      for (int peer = 0; peer < ranks; ++peer) {
        size_t skipped = 0;
        for (int earlier = 0; earlier < rank; ++earlier) skipped += pair(job, peer, earlier);
        const size_t count = pair(job, peer, rank);
        copy(joined.buffer[{at, count}], oracle.input_of(peer, {skipped, count}));
        at += count;
      }
      break;
    }
    default: break;
  }

  call.in = in.buffer;
  call.out = out.buffer;
  if (job.kind == Kind::broadcast) call.in = call.out = in.buffer;
  if (job.in_place && (job.kind == Kind::allreduce || (job.kind == Kind::reduce && rank == root))) call.out = in.buffer;
  lay_out(call, rank, ranks, given, received);
  const Buffer result = call.out;
  comm.run(call);
  PYCOLL_CHECK_AS(Error, same(result, wanted), job.name(), " on rank ", rank, " of ", ranks, ": wrong result");
  const bool untouched = result.data == in.buffer.data || job.kind == Kind::broadcast || same(in.buffer, given_in);
  PYCOLL_CHECK_AS(Error, untouched, job.name(), " on rank ", rank, " of ", ranks, ": input was changed");
}

// All jobs with this element type and operator. Collectives that do not reduce are done once for each type, as sums.
std::vector<Job> jobs(const Shape& shape, DType dtype, ReduceOp op) {
  const auto medium = shape.nodes.empty() ? algo::Medium::shared : algo::Medium::messages;
  const size_t p = size_t(shape.ranks);
  std::vector<size_t> counts = {0, 1, p + 1, 1009};
  if (p > 2) counts.push_back(p - 1);
  // An algorithm sees neither the operator nor more of a type than its size: a type of each size, as a sum, takes all
  // counts; all else one of them, not 0, and not the same for other types, operators and numbers of ranks.
  const bool of_each_size =
      dtype == DType::i8 || dtype == DType::bf16 || dtype == DType::f32 || dtype == DType::f64 || dtype == DType::c128;
  if (!(of_each_size && op == ReduceOp::sum) && !flag("PYCOLL_TEST_FULL"))
    counts = {counts[1 + (size_t(dtype) + size_t(op) + p) % (counts.size() - 1)]};
  // A million elements: of all of them where there is time, else of the types that take paths of their own.
  const bool telling = op == ReduceOp::sum && (dtype == DType::f32 || dtype == DType::bf16);
  const bool large =
      flag("PYCOLL_TEST_FULL") || (telling && !flag("PYCOLL_TEST_QUICK") && (p <= 5 || p == 8 || p == 17));
  std::vector<Job> all;
  for (const Kind kind : {Kind::allreduce, Kind::reduce_scatter, Kind::allgather, Kind::broadcast, Kind::reduce,
                          Kind::gather, Kind::scatter, Kind::alltoall, Kind::barrier}) {
    if (reduces(kind) ? !is_defined(op, dtype) : op != ReduceOp::sum) continue;
    if (kind == Kind::barrier && dtype != DType::f32) continue;
    const bool chunked = kind != Kind::allreduce && kind != Kind::reduce && kind != Kind::broadcast;
    for (int a = 0; a < kAlgos; ++a) {
      const Algo algo = Algo(a);
      if (!algo::supports(algo, kind, medium)) continue;
      for (const size_t count : counts) all.push_back({kind, algo, dtype, op, count, false, count % 2 == 1});
      if (chunked && (op == ReduceOp::sum || op == ReduceOp::avg))
        all.push_back({kind, algo, dtype, op, 13, true, false});
      if (large) all.push_back({kind, algo, dtype, op, chunked ? 1'000'000 / p : 1'000'000, false, true});
    }
  }
  return all;
}

void run_all(const Shape& shape) {
  const auto comms = threads::make(shape);
  size_t operations = 0;
  for (int t = 0; t < kDTypes; ++t)
    for (int o = 0; o < kReduceOps; ++o) {
      const std::vector<Job> work = jobs(shape, DType(t), ReduceOp(o));
      if (work.empty()) continue;
      size_t most = 0;
      for (const Job& job : work) most = std::max(most, elements(shape.ranks, job));
      const Oracle oracle(shape.ranks, most, DType(t), ReduceOp(o));
      threads::run(shape.ranks, [&](int rank) {
        for (const Job& job : work) run_job(*comms[size_t(rank)], job, oracle);
      });
      operations += work.size();
    }
  std::printf("        %zu operations on %s\n", operations, shape.name().c_str());
}

std::vector<int> sizes() {
  if (flag("PYCOLL_TEST_QUICK")) return {1, 2, 3, 5};
  std::vector<int> all;
  for (int p = 1; p <= 17; ++p) all.push_back(p);
  return all;
}

TEST("collectives over shared memory") {
  for (const int ranks : sizes()) run_all({ranks, {}});
}

TEST("collectives over messages, one node") {
  for (const int ranks : sizes()) run_all({ranks, {ranks}});
}

TEST("collectives over messages, several nodes") {
  if (flag("PYCOLL_TEST_QUICK")) return run_all({5, {3, 2}});
  for (const std::vector<int>& nodes : {std::vector<int>{1, 1}, {2, 2}, {4, 1, 2}, {3, 3, 3}, {1, 5, 2, 4}}) {
    int ranks = 0;
    for (const int n : nodes) ranks += n;
    run_all({ranks, nodes});
  }
}

// Random f32: any order of P - 1 additions is within (P - 1) u sum|x| of the exact sum, u = 2^-24 (Higham, Accuracy and
// Stability of Numerical Algorithms, 4.2, first order), and all ranks have the same bits.
TEST("float sums are within their bound, and the same bits on every rank") {
  for (const Shape& shape : {Shape{4, {}}, Shape{7, {}}, Shape{6, {4, 2}}}) {
    const auto medium = shape.nodes.empty() ? algo::Medium::shared : algo::Medium::messages;
    const auto comms = threads::make(shape);
    const size_t count = 20011;
    std::vector<std::vector<float>> inputs(size_t(shape.ranks), std::vector<float>(count));
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    for (auto& x : inputs)
      for (float& v : x) v = normal(random);
    for (int a = 0; a < kAlgos; ++a) {
      if (!algo::supports(Algo(a), Kind::allreduce, medium)) continue;
      auto x = inputs;
      threads::run(shape.ranks, [&](int rank) {
        Call call;
        call.kind = Kind::allreduce;
        call.algo = Algo(a);
        call.out = {reinterpret_cast<std::byte*>(x[size_t(rank)].data()), count, DType::f32};
        call.in = call.out;
        comms[size_t(rank)]->run(call);
      });
      for (size_t i = 0; i < count; ++i) {
        double sum = 0, magnitude = 0;
        for (const auto& in : inputs) sum += double(in[i]), magnitude += std::abs(double(in[i]));
        const double bound = double(shape.ranks - 1) * std::ldexp(1.0, -24) * magnitude * (1 + 1e-6);
        CHECK(std::abs(double(x[0][i]) - sum) <= bound, name_of(Algo(a)), " element ", i, " off by ",
              double(x[0][i]) - sum, ", bound ", bound);
      }
      for (const auto& other : x)
        CHECK(std::memcmp(other.data(), x[0].data(), count * 4) == 0, name_of(Algo(a)), ": ranks differ");
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv);
}
