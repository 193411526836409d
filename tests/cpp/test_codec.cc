#include <cmath>
#include <cstring>
#include <vector>

#include "check.h"
#include "codec/blocks.h"

using namespace pycoll;
using namespace pycoll::codec;

TEST("codecs: what is decoded is what was encoded, within the step of the format") {
  for (int f = 0; f < kValueFormats; ++f) {
    const auto codec = make({.format = ValueFormat(f)});
    for (const size_t count : {0, 1, 255, 256, 257, 5000}) {
      std::vector<float> x(count), out(count), residual(count);
      for (size_t i = 0; i < count; ++i) x[i] = std::sin(float(i) + 1);
      std::vector<std::byte> wire(codec->most_bytes(count));
      const size_t bytes = codec->encode(x, residual.data(), {}, wire);
      CHECK(bytes == wire.size());
      decode_into(out, wire, "of itself");
      for (size_t i = 0; i < count; ++i) CHECK(out[i] + residual[i] == x[i] || f >= 3, i, " ", out[i], " ", x[i]);
      for (size_t i = 0; i < count; ++i)
        CHECK(std::fabs(out[i] + residual[i] - x[i]) < 1e-6, codec->describe(), " ", i, " ", out[i], " ", x[i]);
      decode_add(out, wire, "of itself");
    }
  }
}

int main(int argc, char** argv) {
  return check::run(argc, argv);
}
