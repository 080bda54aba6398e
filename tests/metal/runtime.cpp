// Runs every thread of a Metal grid as a fiber on one CPU thread, with simdgroups of 32 in lock step at simd
// operations, and threadgroups at barriers. Buffers lie between inaccessible pages. Linux on x86-64.
#include "runtime.hpp"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

namespace {
constexpr size_t kGuard = size_t(1) << 30, kPage = 4096, kStack = 64 << 10;
constexpr int kThreads = 1024, kLanes = 32, kBuffers = 64, kSharedLimit = 32 << 10;
enum State { kReady, kAtSimd, kAtSimdBarrier, kAtBarrier, kDone };

struct Fiber {
  jmp_buf resume;
  char* stack;
  State state;
  int operation, line, parity;
  bool started;
  Attributes thread;
};
struct Buffer {
  char *region, *base;
  size_t bytes, usable;
};
struct Shared {
  void* memory;
  size_t bytes;
  bool seen;
};

Fiber fibers[kThreads];
Slot slots[2][kThreads];
Buffer buffers[kBuffers];
Shared shared[kBuffers];
int buffer_count, shared_count, count, current;
bool backwards;
char message[1024];
jmp_buf scheduler;
sigjmp_buf failure;
ucontext_t birth;
Entry entry;
void** arguments;
void* fault_pc;

int nth(int i, int n) { return backwards ? n - 1 - i : i; }

void fiber_main() {
  const int self = current;
  if (!_setjmp(fibers[self].resume)) _longjmp(scheduler, 1);
  for (;;) {
    entry(arguments, fibers[self].thread);
    fibers[self].state = kDone;
    if (!_setjmp(fibers[self].resume)) _longjmp(scheduler, 1);
  }
}

void start(int i) {
  Fiber& fiber = fibers[i];
  if (!fiber.stack) {
    char* at = (char*)mmap(nullptr, kStack + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    mprotect(at, kPage, PROT_NONE);
    fiber.stack = at + kPage;
  }
  getcontext(&birth);
  birth.uc_stack.ss_sp = fiber.stack;
  birth.uc_stack.ss_size = kStack;
  birth.uc_link = nullptr;
  makecontext(&birth, fiber_main, 0);
  current = i;
  if (!_setjmp(scheduler)) setcontext(&birth);
  fiber.started = true;
}

void resume(int i) {
  current = i;
  if (!_setjmp(scheduler)) _longjmp(fibers[i].resume, 1);
}

void block(State state, int operation, int line) {
  Fiber& fiber = fibers[current];
  fiber.state = state;
  fiber.operation = operation;
  fiber.line = line;
  if (!_setjmp(fiber.resume)) _longjmp(scheduler, 1);
}

void diverged(const char* what, int a, int b) {
  current = a;
  static char text[200];
  const Fiber &one = fibers[a], &other = fibers[b];
  snprintf(text, sizeof text, "%s: thread %d is at line %d%s, thread %d at line %d%s", what, a, one.line,
           one.state == kDone ? " (returned)" : "", b, other.line, other.state == kDone ? " (returned)" : "");
  emulator_fail(text, one.state == kDone ? other.line : one.line);
}

// Runs one simdgroup until all its lanes are at a threadgroup barrier or have returned.
void run_simdgroup(int first, int lanes) {
  for (;;) {
    for (int i = 0; i < lanes; ++i) {
      const int fiber = first + nth(i, lanes);
      if (fibers[fiber].state == kReady) resume(fiber);
    }
    for (int i = 1; i < lanes; ++i) {
      const Fiber &a = fibers[first], &b = fibers[first + i];
      const bool same = a.state == b.state && (a.state == kDone || (a.operation == b.operation && a.line == b.line));
      if (!same) diverged("divergent simd operation or barrier", first, first + i);
    }
    if (fibers[first].state == kDone || fibers[first].state == kAtBarrier) return;
    for (int i = 0; i < lanes; ++i) fibers[first + i].state = kReady;
  }
}

void run_threadgroup() {
  shared_count = 0;
  const int groups = (count + kLanes - 1) / kLanes;
  for (;;) {
    for (int i = 0; i < groups; ++i) {
      const int first = nth(i, groups) * kLanes;
      run_simdgroup(first, count - first < kLanes ? count - first : kLanes);
    }
    for (int i = 1; i < count; ++i)
      if (fibers[i].state != fibers[0].state || (fibers[i].state != kDone && fibers[i].line != fibers[0].line))
        diverged("divergent threadgroup barrier", 0, i);
    if (fibers[0].state == kDone) return;
    for (int i = 0; i < count; ++i) fibers[i].state = kReady;
  }
}

uint min_of(uint a, uint b) { return a < b ? a : b; }

void prepare(const uint3& group, const uint3& grid, const uint3& size, const uint3& groups) {
  const uint3 origin = {group.x * size.x, group.y * size.y, group.z * size.z};
  const uint3 here = {min_of(size.x, grid.x - origin.x), min_of(size.y, grid.y - origin.y), min_of(size.z, grid.z - origin.z)};
  count = int(here.x * here.y * here.z);
  int i = 0;
  for (uint z = 0; z < here.z; ++z)
    for (uint y = 0; y < here.y; ++y)
      for (uint x = 0; x < here.x; ++x, ++i) {
        if (!fibers[i].started) start(i);
        fibers[i].state = kReady;
        fibers[i].line = 0;
        fibers[i].parity = 0;
        fibers[i].thread = {{origin.x + x, origin.y + y, origin.z + z}, {x, y, z}, group, grid, here, groups, size,
                            uint(i), uint(i % kLanes), uint(i / kLanes), kLanes, uint((count + kLanes - 1) / kLanes)};
      }
}

void describe(const char* what, int line) {
  const uint3 at = fibers[current].thread.thread_position_in_grid;
  snprintf(message, sizeof message, "%s; thread (%u, %u, %u)%s%d", what, at.x, at.y, at.z, line ? ", kernel line " : "", line);
  if (!line) message[strlen(message) - 1] = 0;
}

void on_signal(int number, siginfo_t* info, void* context) {
  fault_pc = (void*)((ucontext_t*)context)->uc_mcontext.gregs[REG_RIP];
  char what[300] = "undefined behaviour (array bounds, alignment, shift or overflow)";
  if (number == SIGSEGV || number == SIGBUS) {
    snprintf(what, sizeof what, "access to address %p, which is in no buffer", info->si_addr);
    const char* address = (const char*)info->si_addr;
    for (int i = 0; i < buffer_count; ++i) {
      const Buffer& b = buffers[i];
      if (address < b.region || address >= b.region + 2 * kGuard + b.usable) continue;
      const long offset = address - b.base;
      const bool inside = offset >= 0 && size_t(offset) < b.bytes;
      snprintf(what, sizeof what, "%s buffer %d at byte %ld of %zu", inside ? "write to read-only" : "out of bounds of", i, offset, b.bytes);
    }
  } else if (number == SIGFPE) {
    snprintf(what, sizeof what, "integer division by zero");
  }
  describe(what, 0);
  siglongjmp(failure, 1);
}
}  // namespace

extern "C" {
int emulator_adversarial = 0;
int emulator_poison = 0xff;

void emulator_fail(const char* what, int line) {
  describe(what, line);
  fault_pc = nullptr;
  siglongjmp(failure, 1);
}

Lanes emulator_simd(const void* value, size_t bytes, int operation, int line) {
  const int self = current, parity = fibers[self].parity;
  memcpy(slots[parity][self].bytes, value, bytes);
  fibers[self].parity ^= 1;
  block(kAtSimd, operation, line);
  const int first = self / kLanes * kLanes;
  const int present = count - first < kLanes ? count - first : kLanes;
  return {&slots[parity][first], uint(present), uint(self - first)};
}

void emulator_barrier(bool whole_threadgroup, int line) { block(whole_threadgroup ? kAtBarrier : kAtSimdBarrier, 0, line); }

void emulator_threadgroup_memory(void* memory, size_t bytes, int line) {
  size_t total = bytes;
  for (int i = 0; i < shared_count; ++i) {
    if (shared[i].memory == memory) return;
    total += shared[i].bytes;
  }
  if (total > kSharedLimit) emulator_fail("more than 32 KiB of threadgroup memory", line);
  shared[shared_count++] = {memory, bytes, true};
  memset(memory, emulator_poison, bytes);
}

float emulator_wrong_by(float exact, float ulps) {
  if (!emulator_adversarial || !(exact > 1e-36f) || exact > 1e38f) return exact;
  uint bits;
  memcpy(&bits, &exact, 4);
  // A function of the value, not of when it is asked for: the same value is always wrong in the same way.
  const uint noise = bits * 2654435761u;
  const float share = emulator_adversarial == 2 ? 1.0f : (float(noise >> 8) / 8388608.0f - 1.0f);
  bits += int(lrintf(share * ulps));
  float result;
  memcpy(&result, &bits, 4);
  return result;
}

// A buffer of `bytes`, aligned to 16 bytes, against the guard above or below; everything in it is poison.
void* emulator_buffer(size_t bytes, int high) {
  Buffer& b = buffers[buffer_count++];
  b.bytes = bytes;
  b.usable = (bytes + kPage) / kPage * kPage;
  b.region = (char*)mmap(nullptr, 2 * kGuard + b.usable, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (b.region == MAP_FAILED) return nullptr;
  mprotect(b.region + kGuard, b.usable, PROT_READ | PROT_WRITE);
  memset(b.region + kGuard, emulator_poison, b.usable);
  b.base = b.region + kGuard + (high ? (b.usable - bytes) / 16 * 16 : 0);
  return b.base;
}

void emulator_read_only(int i) { mprotect(buffers[i].region + kGuard, buffers[i].usable, PROT_READ); }

// The first byte outside of buffer i, but on its pages, that is no longer poison; 0 if all are.
int emulator_spilled(int i) {
  const Buffer& b = buffers[i];
  const char* from = b.region + kGuard;
  for (const char* at = from; at < from + b.usable; ++at)
    if ((at < b.base || at >= b.base + b.bytes) && (unsigned char)*at != emulator_poison) return 1;
  return 0;
}

void emulator_release() {
  for (int i = 0; i < buffer_count; ++i) munmap(buffers[i].region, 2 * kGuard + buffers[i].usable);
  buffer_count = 0;
}

// 0, or 1 with what went wrong in `text` and the machine address of it (or null) in `pc`.
int emulator_run(Entry kernel, void** args, const uint3* grid, const uint3* size, int reversed, char* text, size_t room, void** pc) {
  static char alternative[64 << 10];
  stack_t own = {}, before = {};
  own.ss_sp = alternative;
  own.ss_size = sizeof alternative;
  sigaltstack(&own, &before);
  const int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
  struct sigaction action = {}, old[5];
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (int i = 0; i < 5; ++i) sigaction(numbers[i], &action, &old[i]);
  entry = kernel;
  arguments = args;
  backwards = reversed;
  int result = 0;
  const uint3 groups = {(grid->x + size->x - 1) / size->x, (grid->y + size->y - 1) / size->y, (grid->z + size->z - 1) / size->z};
  if (sigsetjmp(failure, 1)) {
    result = 1;
    snprintf(text, room, "%s", message);
    *pc = fault_pc;
    for (Fiber& fiber : fibers) fiber.started = false;  // left in the middle of something
  } else {
    const uint total = groups.x * groups.y * groups.z;
    for (uint i = 0; i < total; ++i) {
      const uint at = reversed ? total - 1 - i : i;
      prepare({at % groups.x, at / groups.x % groups.y, at / groups.x / groups.y}, *grid, *size, groups);
      run_threadgroup();
    }
  }
  for (int i = 0; i < 5; ++i) sigaction(numbers[i], &old[i], nullptr);
  sigaltstack(&before, nullptr);
  return result;
}
}
