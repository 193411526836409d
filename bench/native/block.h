/* One rank of a contestant: sleeps in read() until bench/peers.py orders a block, runs it, answers, sleeps again, so
 * that nobody spins while another is measured. Compiles as C and as C++; bench/peers/rank.py does the same in Python.
 *
 * In the folder PEERS_FOLDER rank r reads FIFO order.r and writes FIFO answer.r, a line at a time:
 *   answer: "ready PID VERSION"                                        once
 *   order:  "COLLECTIVE BYTES MEMORY WARMUP SAMPLES BATCH TOUCH"
 *   answer: "done WRONG BEGIN END BEGIN END ..."  wrong elements here; when each sample, which is BATCH calls, began
 * and ended here: nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share "error SENTENCE"        and
 * the rank ends End of file instead of an order: the rank ends. BYTES is the larger of a rank's two arrays. As C it
 * wants -D_GNU_SOURCE. */
#pragma once
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_SECONDS 60 /* a rank that is longer in a block ends, also when nobody is left to end it */

enum collective { ALLREDUCE, REDUCE_SCATTER, ALLGATHER, BROADCAST, ALLTOALL };

struct block {
  enum collective collective;
  size_t in_count, out_count; /* elements of float32 */
  float *in, *out;            /* one array where the collective is in place: allreduce, broadcast */
  char memory[16];            /* what kind, in the contestant's own words */
  int rank, size;
  int warmup, samples, batch;
  int touch; /* 1: the input is rewritten before every sample, untimed; a sample is then one call */
};

/* What a contestant brings. */
struct contestant {
  int rank, size;
  const char* version;
  void* (*allocate)(const struct block* block, int which, size_t bytes); /* which: 0 input, 1 output */
  void (*release)(const struct block* block, int which, void* memory, size_t bytes);
  void (*prepare)(const struct block* block);
  void (*call)(const struct block* block);
  void (*barrier)(void);
};

static FILE* answers;

static void answer_error(const char* sentence) {
  if (!answers) return;
  fprintf(answers, "error %s\n", sentence);
  fflush(answers);
}

/* Plain memory of this process, as every contestant but the symmetric ones uses it. */
static inline void* allocate_private(const struct block* block, int which, size_t bytes) {
  void* memory = NULL;
  (void)block, (void)which;
  if (posix_memalign(&memory, 4096, bytes) != 0) return NULL;
  return memory;
}

static inline void release_private(const struct block* block, int which, void* memory, size_t bytes) {
  (void)block, (void)which, (void)bytes;
  free(memory);
}

static inline void prepare_nothing(const struct block* block) {
  (void)block;
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* PEERS_CORES holds the numbers of the cores to use, "0,1". A core each, if there are enough; else all for all. */
static void bind_rank(int rank, int size) {
  const char* text = getenv("PEERS_CORES");
  cpu_set_t all, one;
  int count = 0;
  CPU_ZERO(&all);
  CPU_ZERO(&one);
  while (text && *text) {
    char* end;
    const int core = (int)strtol(text, &end, 10);
    if (end == text) break;
    CPU_SET(core, &all);
    if (count++ == rank) CPU_SET(core, &one);
    text = *end ? end + 1 : end;
  }
  if (count) sched_setaffinity(0, sizeof all, count >= size ? &one : &all);
}

/* Small whole numbers, other ones for each rank: sums of them are exact in float32. */
static float input_of(int rank, size_t i) {
  return (float)((uint32_t)i % 251u + 256u * (uint32_t)rank);
}

static void fill(const struct block* b) {
  for (size_t i = 0; i < b->in_count; ++i) b->in[i] = input_of(b->rank, i);
}

static float expected(const struct block* b, size_t i) {
  const size_t share = b->out_count / (size_t)b->size;
  const float others = (float)(256 * (b->size * (b->size - 1) / 2));
  switch (b->collective) {
    case ALLREDUCE: return (float)b->size * input_of(0, i) + others;
    case REDUCE_SCATTER: return (float)b->size * input_of(0, (size_t)b->rank * b->out_count + i) + others;
    case ALLGATHER: return input_of((int)(i / share), i % share);
    case BROADCAST: return input_of(0, i);
    default: return input_of((int)(i / share), (size_t)b->rank * share + i % share);
  }
}

static size_t wrong_elements(const struct block* b) {
  size_t wrong = 0;
  for (size_t i = 0; i < b->out_count; ++i) wrong += b->out[i] != expected(b, i);
  return wrong;
}

static int parse_order(const char* line, struct block* b, size_t* bytes) {
  static const char* const names[] = {"allreduce", "reduce_scatter", "allgather", "broadcast", "alltoall"};
  char name[32];
  if (sscanf(line, "%31s %zu %15s %d %d %d %d", name, bytes, b->memory, &b->warmup, &b->samples, &b->batch,
             &b->touch) != 7)
    return 0;
  for (int i = 0; i < 5; ++i)
    if (strcmp(name, names[i]) == 0) {
      b->collective = (enum collective)i;
      return 1;
    }
  return 0;
}

static void time_sample(const struct contestant* c, const struct block* b, int64_t* begin, int64_t* end) {
  if (b->touch) fill(b);
  c->barrier();
  *begin = now_ns();
  for (int i = 0; i < b->batch; ++i) c->call(b);
  *end = now_ns();
}

/* Sums in place grow beyond all numbers while they are timed, which costs no time; what is checked is computed last,
 * from new input. */
static void run_block(const struct contestant* c, struct block* b, size_t bytes) {
  const size_t whole = bytes / sizeof(float), share = whole / (size_t)c->size;
  const int in_place = b->collective == ALLREDUCE || b->collective == BROADCAST;
  b->rank = c->rank;
  b->size = c->size;
  b->in_count = b->collective == ALLGATHER ? share : whole;
  b->out_count = b->collective == REDUCE_SCATTER ? share : whole;
  const size_t in_bytes = b->in_count * sizeof(float), out_bytes = b->out_count * sizeof(float);
  b->in = (float*)c->allocate(b, 0, in_bytes);
  b->out = in_place ? b->in : (float*)c->allocate(b, 1, out_bytes);
  if (!b->in || !b->out) {
    answer_error("no memory");
    exit(1);
  }
  fill(b);
  if (!in_place) memset(b->out, 0, out_bytes);
  c->prepare(b);
  for (int i = 0; i < b->warmup; ++i) c->call(b);
  int64_t* const times = (int64_t*)malloc(2 * (size_t)b->samples * sizeof(int64_t));
  for (int i = 0; i < b->samples; ++i) time_sample(c, b, &times[2 * i], &times[2 * i + 1]);

  c->barrier(); /* the roofline's calls do not wait for each other */
  fill(b);
  if (!in_place) memset(b->out, 0, out_bytes);
  c->barrier();
  c->call(b);
  c->barrier();
  fprintf(answers, "done %zu", wrong_elements(b));
  for (int i = 0; i < 2 * b->samples; ++i) fprintf(answers, " %lld", (long long)times[i]);
  fprintf(answers, "\n");
  free(times);
  c->barrier(); /* nobody drops memory that another still reads */
  if (!in_place) c->release(b, 1, b->out, out_bytes);
  c->release(b, 0, b->in, in_bytes);
  fflush(answers);
}

static FILE* open_pipe(const char* kind, int rank, const char* mode) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s.%d", getenv("PEERS_FOLDER"), kind, rank);
  FILE* const file = fopen(path, mode);
  if (!file) {
    perror(path);
    exit(1);
  }
  return file;
}

/* Serves orders until there are no more. */
static void serve(const struct contestant* c) {
  char line[256];
  if (!getenv("PEERS_FOLDER")) {
    fprintf(stderr, "PEERS_FOLDER is not set: this program is started by bench/peers.py\n");
    exit(2);
  }
  FILE* const orders = open_pipe("order", c->rank, "re");
  answers = open_pipe("answer", c->rank, "we");
  bind_rank(c->rank, c->size);
  fprintf(answers, "ready %d %s\n", (int)getpid(), c->version);
  fflush(answers);
  while (fgets(line, sizeof line, orders)) {
    struct block block;
    size_t bytes;
    memset(&block, 0, sizeof block);
    if (!parse_order(line, &block, &bytes)) {
      answer_error("the order cannot be read");
      exit(1);
    }
    alarm(BLOCK_SECONDS);
    run_block(c, &block, bytes);
    alarm(0);
  }
}
