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
  bool operator==(const Array& other) const { return bytes == other.bytes; }
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

void fill(Buffer x, int rank, size_t first, const Job& job) {
  for (size_t i = 0; i < x.count; ++i) put(x, i, input(rank, first + i, job.dtype, job.op));
}

void fill_expected(Buffer x, int ranks, size_t first, const Job& job) {
  for (size_t i = 0; i < x.count; ++i) put(x, i, expected(ranks, first + i, job.dtype, job.op));
}

// Runs one job on one rank; throws where the result is not the oracle's.
void run_job(Communicator& comm, const Job& job) {
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
  Array in(in_count, job.dtype), out(out_count, job.dtype), wanted(out_count, job.dtype);
  fill(in.buffer, rank, 0, job);
  if (job.kind == Kind::scatter) fill(in.buffer, root, 0, job);
  const Array before = in;

  switch (job.kind) {
    case Kind::allreduce: fill_expected(wanted.buffer, ranks, 0, job); break;
    case Kind::reduce: fill_expected(wanted.buffer, ranks, 0, job); break;
    case Kind::reduce_scatter: fill_expected(wanted.buffer, ranks, layout[size_t(rank)].begin, job); break;
    case Kind::broadcast: fill(wanted.buffer, root, 0, job); break;
    case Kind::allgather:
    case Kind::gather:
      if (out_count)
        for (int peer = 0; peer < ranks; ++peer) fill(wanted.buffer[layout[size_t(peer)]], peer, 0, job);
      break;
    case Kind::scatter: fill(wanted.buffer, root, layout[size_t(rank)].begin, job); break;
    case Kind::alltoall: {
      size_t at = 0;
      for (int peer = 0; peer < ranks; ++peer) {
        size_t skipped = 0;
        for (int earlier = 0; earlier < rank; ++earlier) skipped += pair(job, peer, earlier);
        const size_t count = pair(job, peer, rank);
        fill(wanted.buffer[{at, count}], peer, skipped, job);
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
  PYCOLL_CHECK_AS(Error, same(result, wanted.buffer), job.name(), " on rank ", rank, " of ", ranks, ": wrong result");
  const bool untouched = result.data == in.buffer.data || job.kind == Kind::broadcast || in == before;
  PYCOLL_CHECK_AS(Error, untouched, job.name(), " on rank ", rank, " of ", ranks, ": input was changed");
}

std::vector<Job> jobs(const Shape& shape) {
  const auto medium = shape.nodes.empty() ? algo::Medium::shared : algo::Medium::messages;
  const size_t p = size_t(shape.ranks);
  std::vector<size_t> counts = {0, 1, p + 1, 1009};
  if (p > 2) counts.push_back(p - 1);
  std::vector<Job> all;
  for (const Kind kind : {Kind::allreduce, Kind::reduce_scatter, Kind::allgather, Kind::broadcast, Kind::reduce,
                          Kind::gather, Kind::scatter, Kind::alltoall, Kind::barrier}) {
    for (int a = 0; a < kAlgos; ++a) {
      const Algo algo = Algo(a);
      if (!algo::supports(algo, kind, medium)) continue;
      for (int t = 0; t < kDTypes; ++t) {
        const DType dtype = DType(t);
        for (int o = 0; o < kReduceOps; ++o) {
          const ReduceOp op = ReduceOp(o);
          if (reduces(kind) ? !is_defined(op, dtype) : op != ReduceOp::sum) continue;
          for (const size_t count : counts) all.push_back({kind, algo, dtype, op, count, false, count % 2 == 1});
          const bool v_form =
              kind != Kind::allreduce && kind != Kind::reduce && kind != Kind::broadcast && kind != Kind::barrier;
          if (v_form && (op == ReduceOp::sum || op == ReduceOp::avg))
            all.push_back({kind, algo, dtype, op, 13, true, false});
          // A million elements: of all of them where there is time, else of the types that take paths of their own.
          const bool telling = op == ReduceOp::sum && (dtype == DType::f32 || dtype == DType::bf16);
          const bool large =
              flag("PYCOLL_TEST_FULL") || (telling && !flag("PYCOLL_TEST_QUICK") && (p <= 5 || p == 8 || p == 17));
          const bool chunked = kind != Kind::allreduce && kind != Kind::reduce && kind != Kind::broadcast;
          if (large) all.push_back({kind, algo, dtype, op, chunked ? 1'000'000 / p : 1'000'000, false, true});
          if (telling && kind == Kind::barrier) break;
        }
        if (kind == Kind::barrier) break;
      }
    }
  }
  return all;
}

void run_all(const Shape& shape) {
  const auto comms = threads::make(shape);
  const std::vector<Job> work = jobs(shape);
  threads::run(shape.ranks, [&](int rank) {
    for (const Job& job : work) run_job(*comms[size_t(rank)], job);
  });
  std::printf("        %zu operations on %s\n", work.size(), shape.name().c_str());
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
