// Compressed allreduce on threads: ranks agree to the bit, errors stay within what the format allows, nothing is lost.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>

#include "check.h"
#include "codec/blocks.h"
#include "codec/randomk.h"
#include "codec/shared_scale.h"
#include "codec/topk.h"
#include "comm/lay_out.h"
#include "threads.h"

namespace {

using namespace pycoll;
using codec::Codec;
using codec::ValueFormat;
using threads::Shape;
using Floats = std::vector<float>;

bool quick() {
  const char* const text = std::getenv("PYCOLL_TEST_QUICK");
  return text && *text == '1';
}

std::shared_ptr<Codec> blocks(ValueFormat format, uint32_t block = 256) {
  return codec::make({format, block});
}
std::shared_ptr<Codec> topk(double ratio, ValueFormat format = ValueFormat::f32) {
  return std::make_shared<codec::TopK>(codec::Amount{ratio, 0}, true, format);
}

// What a rank contributes: normal numbers, different for each rank.
Floats input(int rank, size_t count, float spread = 1) {
  std::mt19937 random(unsigned(rank) * 1000 + unsigned(count));
  std::normal_distribution<float> normal(0, spread);
  Floats x(count);
  for (float& number : x) number = normal(random);
  return x;
}

struct Result {
  std::vector<Floats> out, residual;
  std::vector<codec::Report> reports;
  std::vector<uint64_t> wire_bytes;
};

struct Wanted {
  std::shared_ptr<Codec> codec;
  size_t count;
  int steps = 1;
  bool feedback = true;
  ReduceOp op = ReduceOp::sum;
  bool everywhere = false;
  Algo algo = Algo::automatic;
  std::function<Floats(int)> input = {};
};

Result run(const Shape& shape, const Wanted& wanted) {
  const auto comms = threads::make(shape);
  const size_t ranks = size_t(shape.ranks);
  Result result{std::vector<Floats>(ranks), std::vector<Floats>(ranks), std::vector<codec::Report>(ranks),
                std::vector<uint64_t>(ranks)};
  threads::run(shape.ranks, [&](int rank) {
    const size_t r = size_t(rank);
    const Floats x = wanted.input ? wanted.input(rank) : input(rank, wanted.count);
    result.out[r].assign(wanted.count, -1);
    if (wanted.feedback) result.residual[r].assign(wanted.count, 0);
    codec::Feedback feedback;
    feedback.residual = wanted.feedback ? result.residual[r].data() : nullptr;
    feedback.count = wanted.count;
    for (int step = 0; step < wanted.steps; ++step) {
      Call call;
      call.kind = Kind::allreduce;
      call.op = wanted.op;
      call.algo = wanted.algo;
      call.in = {reinterpret_cast<const std::byte*>(x.data()), wanted.count, DType::f32};
      call.out = {reinterpret_cast<std::byte*>(result.out[r].data()), wanted.count, DType::f32};
      call.compression = {wanted.codec, &feedback, {}, wanted.everywhere};
      lay_out(call, rank, shape.ranks, {}, {});
      comms[r]->run(call);
    }
    result.reports[r] = feedback.report;
    result.wire_bytes[r] = comms[r]->stats().wire_bytes;
    comms[r]->close();
  });
  return result;
}

Shape messages(int ranks) {
  return {ranks, std::vector<int>(size_t(ranks), 1)};
}

std::vector<double> exact_sum(int ranks, size_t count, const std::function<Floats(int)>& of = {}) {
  std::vector<double> sum(count, 0);
  for (int rank = 0; rank < ranks; ++rank) {
    const Floats x = of ? of(rank) : input(rank, count);
    for (size_t i = 0; i < count; ++i) sum[i] += double(x[i]);
  }
  return sum;
}

bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

void check_agreement(const Result& result, const std::string& what) {
  for (size_t rank = 1; rank < result.out.size(); ++rank)
    CHECK(same_bits(result.out[rank], result.out[0]), what, ": rank ", rank, " differs from rank 0");
}

double rms_error(const Floats& got, const std::vector<double>& wanted) {
  double sum = 0;
  for (size_t i = 0; i < got.size(); ++i) sum += (double(got[i]) - wanted[i]) * (double(got[i]) - wanted[i]);
  return std::sqrt(sum / double(got.size()));
}

std::vector<int> rank_counts() {
  return quick() ? std::vector{1, 2, 3, 5} : std::vector{1, 2, 3, 4, 5, 7, 8, 16, 17};
}

struct Named {
  const char* name;
  std::shared_ptr<Codec> codec;
};
std::vector<Named> all_codecs() {
  return {{"f32", blocks(ValueFormat::f32)},
          {"bf16", blocks(ValueFormat::bf16)},
          {"f16", blocks(ValueFormat::f16)},
          {"int8", blocks(ValueFormat::int8)},
          {"int4", blocks(ValueFormat::int4, 128)},
          {"e4m3", blocks(ValueFormat::e4m3, 128)},
          {"e5m2", blocks(ValueFormat::e5m2, 128)},
          {"sign", blocks(ValueFormat::bit)},
          {"topk", topk(0.05)},
          {"topk bf16", topk(0.05, ValueFormat::bf16)},
          {"topk near", std::make_shared<codec::TopK>(codec::Amount{0.05, 0}, false, ValueFormat::f32)},
          {"randomk", std::make_shared<codec::RandomK>(codec::Amount{0.05, 0}, 7)},
          {"shared 8", std::make_shared<codec::SharedScale>(8, 256)},
          {"shared 16", std::make_shared<codec::SharedScale>(16, 256)}};
}

// Sum over ranks of what went in, less what is still in residuals, is what came out.
void check_conserved(const Result& result, const std::vector<double>& sum, int divisor, double bound,
                     const std::string& what) {
  double worst = 0;
  for (size_t i = 0; i < sum.size(); ++i) {
    double kept = 0;
    for (const Floats& residual : result.residual) kept += double(residual[i]);
    worst = std::max(worst, std::abs(double(result.out[0][i]) * divisor + kept - sum[i]));
  }
  CHECK(worst <= bound, what, ": ", worst, " was lost, at most ", bound, " may be by rounding");
}

}  // namespace

TEST("every codec, any number of ranks and count: the same bits on all ranks, and nothing is lost") {
  for (const Named& named : all_codecs())
    for (const int ranks : rank_counts())
      for (const size_t count : {size_t(0), size_t(1), size_t(ranks + 1), size_t(1000), size_t(70001)}) {
        if (quick() && count > 1000 && ranks > 3) continue;
        for (const bool shared : {true, false}) {
          if (shared && count == 70001) continue;
          const std::string what = concat(named.name, ", ", ranks, " ranks, ", count, shared ? ", shared" : "");
          const Shape shape = shared ? Shape{ranks, {}} : messages(ranks);
          const Result result = run(shape, {named.codec, count, 1, true, ReduceOp::avg});
          check_agreement(result, what);
          // Each of at most 2P + 4 roundings of partial sums of magnitude at most 6P.
          const double bound = (2 * ranks + 4) * 6.0 * ranks * 6e-8;
          check_conserved(result, exact_sum(ranks, count), ranks, bound, what);
        }
      }
}

TEST("an identity codec is a plain sum in rank order") {
  const Result result = run(messages(3), {blocks(ValueFormat::f32), 5000, 1, false});
  for (size_t i = 0; i < 5000; ++i) {
    // The owner starts from 0 and adds in rank order.
    float sum = 0;
    for (int rank = 0; rank < 3; ++rank) sum += input(rank, 5000)[i];
    if (i % 500 == 0) CHECK(result.out[1][i] == sum);
  }
}

// The control: a ring in which every rank decodes, adds and encodes again what it passes on.
static Floats quantized_ring(int ranks, size_t count, const Codec& codec) {
  Floats sum = input(0, count);
  std::vector<std::byte> wire(codec.most_bytes(count));
  for (int rank = 1; rank < ranks; ++rank) {
    const size_t bytes = codec.encode(sum, nullptr, {}, wire);
    sum = input(rank, count);
    codec::decode_add(sum, std::span(wire).first(bytes), "in the control");
  }
  const size_t bytes = codec.encode(sum, nullptr, {}, wire);
  codec::decode_into(sum, std::span(wire).first(bytes), "in the control");
  return sum;
}

TEST("the error of two shots stays flat as ranks grow, that of a quantized ring grows") {
  // In units of the sum's own spread, sqrt(P). Two shots: P - 1 errors of a spread of 1 add up like the numbers do,
  // and one of the sum. A ring: P errors of growing partial sums.
  const size_t count = 1 << 14;
  const auto codec = blocks(ValueFormat::int8);
  const auto relative = [&](const Floats& got, int ranks) {
    return rms_error(got, exact_sum(ranks, count)) / std::sqrt(double(ranks));
  };
  const int many = quick() ? 8 : 16;
  const double two = relative(run(messages(2), {codec, count, 1, false}).out[0], 2);
  const double flat = relative(run(messages(many), {codec, count, 1, false}).out[0], many);
  const double ring_two = relative(quantized_ring(2, count, *codec), 2);
  const double ring = relative(quantized_ring(many, count, *codec), many);
  CHECK(flat < 1.3 * two, "two shots: ", two, " with 2 ranks, ", flat, " with ", many);
  CHECK(ring > 1.6 * ring_two, "ring: ", ring_two, " with 2 ranks, ", ring, " with ", many);
}

TEST("sums of shared scales are the same bits under every algorithm and arrangement of ranks") {
  const size_t count = 3001;
  const auto codec = std::make_shared<codec::SharedScale>(16, 128);
  const Floats first = run(messages(6), {codec, count}).out[0];
  for (const Algo algo : {Algo::ring, Algo::tree, Algo::doubling, Algo::halving, Algo::circulant, Algo::pairwise}) {
    Wanted wanted{codec, count};
    wanted.algo = algo;
    CHECK(same_bits(run(messages(6), wanted).out[3], first));
  }
  CHECK(same_bits(run({6, {}}, {codec, count}).out[2], first));
  // The other way round: rank r has what rank 5 - r had.
  Wanted turned{codec, count};
  turned.input = [&](int rank) { return input(5 - rank, count); };
  CHECK(same_bits(run(messages(6), turned).out[0], first));
}

TEST("what is too small for a shared scale stays in the residual") {
  Wanted wanted{std::make_shared<codec::SharedScale>(16, 128), 300};
  wanted.input = [](int) { return Floats(300, 1e-44f); };
  const Result result = run(messages(3), wanted);
  for (int rank = 0; rank < 3; ++rank) {
    CHECK(same_bits(result.out[size_t(rank)], Floats(300, 0.0f)));
    CHECK(same_bits(result.residual[size_t(rank)], Floats(300, 1e-44f)));
  }
}

TEST("a NaN or an infinity anywhere is seen by every rank") {
  for (const Named& named : all_codecs())
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      Wanted wanted{named.codec, 900};
      wanted.input = [&](int rank) {
        Floats x = input(rank, 900);
        if (rank == 1) x[613] = bad;
        return x;
      };
      const Result result = run(messages(3), wanted);
      for (int rank = 0; rank < 3; ++rank) {
        bool seen = false;
        for (const float number : result.out[size_t(rank)]) seen |= !std::isfinite(number);
        CHECK(seen, named.name, ": rank ", rank, " did not see ", bad);
        for (const float number : result.residual[size_t(rank)])
          CHECK(std::isfinite(number), named.name, ": the residual of rank ", rank, " is not finite");
      }
    }
}

TEST("a sparse allreduce moves at most 6k entries a rank, wherever they lie") {
  const size_t count = quick() ? 60000 : 200000;
  const double ratio = 0.01;
  const size_t k = size_t(ratio * double(count));
  const auto clustered = [&](int rank) {
    Floats x = input(rank, count, 0.01f);
    const Floats hot = input(rank + 100, count);
    for (size_t i = count / 2; i < count / 2 + 2 * k; ++i) x[i] = 10 * hot[i];
    return x;
  };
  for (const int ranks : quick() ? std::vector{2, 5} : std::vector{2, 4, 8, 17})
    for (const bool cluster : {false, true}) {
      Wanted wanted{topk(ratio), count};
      if (cluster) wanted.input = clustered;
      const Result result = run(messages(ranks), wanted);
      for (int rank = 0; rank < ranks; ++rank) {
        const codec::Report& report = result.reports[size_t(rank)];
        // At 6 bytes an entry, and headers and block counts.
        const size_t overhead =
            size_t(ranks) * 2 * (32 + 16 + 4 * (count / 65536 + 1)) + (4096 + 3 * 256 * size_t(ranks)) * 4 * 10;
        CHECK(report.wire_bytes <= 3 * k * 6 + overhead, ranks, " ranks", cluster ? ", clustered" : "", ": rank ", rank,
              " sent ", report.wire_bytes, " bytes, wanted at most ", 3 * k * 6 + overhead);
        CHECK(report.kept <= k + size_t(ranks));
      }
    }
}

TEST("sparse chunks that are cheaper dense travel dense, and the result is the same") {
  const size_t count = 4000;
  const Result dense = run(messages(3), {topk(1), count}), plain = run(messages(3), {blocks(ValueFormat::f32), count});
  CHECK(dense.reports[0].dense_payloads > 0);
  CHECK(run(messages(3), {topk(0.01), count}).reports[0].dense_payloads == 0);
  CHECK(rms_error(dense.out[0], exact_sum(3, count)) < 1e-6);
  CHECK(rms_error(plain.out[0], exact_sum(3, count)) < 1e-6);
}

TEST("error feedback sends in time what one step leaves out") {
  // The same numbers again and again: the sum of all results nears steps x the sum, and without feedback it does not.
  const size_t count = 2000;
  const auto total = [&](bool feedback, int steps) {
    Floats sum(count, 0);
    const auto comms = threads::make(messages(2));
    std::vector<Floats> residual(2, Floats(count, 0));
    threads::run(2, [&](int rank) {
      const Floats x = input(rank, count);
      Floats out(count);
      codec::Feedback kept;
      kept.residual = feedback ? residual[size_t(rank)].data() : nullptr;
      kept.count = count;
      for (int step = 0; step < steps; ++step) {
        Call call;
        call.kind = Kind::allreduce;
        call.in = {reinterpret_cast<const std::byte*>(x.data()), count, DType::f32};
        call.out = {reinterpret_cast<std::byte*>(out.data()), count, DType::f32};
        call.compression = {topk(0.02), &kept, {}, false};
        lay_out(call, rank, 2, {}, {});
        comms[size_t(rank)]->run(call);
        if (rank == 0)
          for (size_t i = 0; i < count; ++i) sum[i] += out[i];
      }
      comms[size_t(rank)]->close();
    });
    for (float& number : sum) number /= float(steps);
    return rms_error(sum, exact_sum(2, count));
  };
  const double with = total(true, 200), without = total(false, 200);
  CHECK(with < 0.3, "with feedback the mean result is off by ", with);
  CHECK(without > 1, "without feedback the mean result is off by ", without, " only");
}

TEST("nodes of several ranks: dense inside, encoded between, or encoded everywhere") {
  const size_t count = 9000;
  const Shape shape{5, {2, 3}};
  for (const Named& named : all_codecs())
    for (const bool everywhere : {false, true}) {
      Wanted wanted{named.codec, count, 1, true, ReduceOp::avg};
      wanted.everywhere = everywhere;
      const Result result = run(shape, wanted);
      const std::string what = concat(named.name, everywhere ? " everywhere" : " between nodes");
      check_agreement(result, what);
      check_conserved(result, exact_sum(5, count), 5, 14 * 30.0 * 6e-8, what);
    }
}

TEST("ranks with different codecs all raise one sentence that names them") {
  const auto comms = threads::make(messages(2));
  std::vector<std::string> said(2);
  threads::run(2, [&](int rank) {
    Floats x(100, 1);
    Call call;
    call.kind = Kind::allreduce;
    call.out = {reinterpret_cast<std::byte*>(x.data()), x.size(), DType::f32};
    call.in = call.out;
    call.compression.codec = rank == 0 ? blocks(ValueFormat::int8) : topk(0.1);
    lay_out(call, rank, 2, {}, {});
    try {
      comms[size_t(rank)]->run(call);
    } catch (const MismatchError& error) {
      said[size_t(rank)] = error.what();
    }
    comms[size_t(rank)]->close();
  });
  CHECK(said[0] == said[1]);
  CHECK(said[0].find("int8") != std::string::npos && said[0].find("topk ratio 0.1") != std::string::npos, said[0]);
}

int main(int argc, char** argv) {
  return check::run(argc, argv);
}
