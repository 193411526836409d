// The few lines that the C++ tests need of a test framework: cases that register themselves, checks that say what they
// saw.
#pragma once
#include <cstdio>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "core/error.h"

namespace check {

struct Case {
  std::string name;
  std::function<void()> body;
};
inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}
struct Register {
  Register(const char* name, std::function<void()> body) { cases().push_back({name, std::move(body)}); }
};
struct Failed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Runs the cases whose name contains argv[1], or all; prints one line a case and a total; 0 if all passed.
inline int run(int argc, char** argv) {
  int passed = 0, failed = 0;
  for (const Case& c : cases()) {
    if (argc > 1 && c.name.find(argv[1]) == std::string::npos) continue;
    try {
      c.body();
      ++passed;
      std::printf("ok      %s\n", c.name.c_str());
    } catch (const std::exception& error) {
      ++failed;
      std::printf("FAILED  %s: %s\n", c.name.c_str(), error.what());
    }
    std::fflush(stdout);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed || !passed;
}

}  // namespace check

#define CHECK_JOIN_(a, b) a##b
#define CHECK_JOIN(a, b) CHECK_JOIN_(a, b)
#define TEST(name)                                                                                 \
  static void CHECK_JOIN(case_, __LINE__)();                                                       \
  static const check::Register CHECK_JOIN(register_, __LINE__)(name, CHECK_JOIN(case_, __LINE__)); \
  static void CHECK_JOIN(case_, __LINE__)()
#define CHECK(condition, ...)                                                                                     \
  do {                                                                                                            \
    if (!(condition))                                                                                             \
      throw check::Failed(pycoll::concat(__FILE__, ":", __LINE__, ": " #condition " is false; ", ##__VA_ARGS__)); \
  } while (0)
