// Runs every thread of a Metal grid as a fiber on one CPU thread. The lanes of a simdgroup hand over to each other at
// simd operations, in lock step; threadgroups meet at barriers. Buffers lie between inaccessible pages. Linux on x86-64.
#include "runtime.hpp"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

namespace {
constexpr size_t kGuard = size_t(1) << 30, kHuge = size_t(1) << 30, kPage = 4096, kStack = 64 << 10;
constexpr int kThreads = 1024, kLanes = 32, kBuffers = 64, kSharedLimit = 32 << 10;

struct Buffer {
  char *region, *base;
  size_t bytes, usable;
};
struct Shared {
  void* memory;
  size_t bytes;
};

struct alignas(1024) Group : Simdgroup {};  // the bit that tells its two rows of slots apart lies in their addresses

Fiber fibers[kThreads], scheduler;
Attributes threads[kThreads];
char* stacks[kThreads];
Group simdgroups[kThreads / kLanes];
Buffer buffers[kBuffers];
Shared shared[kBuffers];
int buffer_count, shared_count, count;
bool backwards;
char message[1024];
sigjmp_buf failure;
Entry entry;
void** arguments;
void* fault_pc;

int nth(int i, int n) { return backwards ? n - 1 - i : i; }

// As wait_for_lanes, but after the last lane the scheduler goes on.
void wait_for_threadgroup(Operation operation, int line) {
  Fiber* const self = emulator_current;
  self->group->at[self->lane] = uint(operation) << 24 | uint(line);
  Fiber* const next = self->next == self->group->leader ? &scheduler : self->next;
  emulator_current = next;
  hand_over(self, next);
  if (self->group->leader == self) emulator_check_lanes(self->group);  // where the last lane waits for something else
}

void fiber_main() {
  entry(arguments, *emulator_current->thread);
  wait_for_threadgroup(kDone, 0);
}

// Handing over to this fiber for the first time calls fiber_main on a stack of its own.
void start(int i) {
  if (!stacks[i]) {
    char* at = (char*)mmap(nullptr, kStack + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    mprotect(at, kPage, PROT_NONE);
    stacks[i] = at + kPage;
  }
  // Not all at the same place of a page: the lanes of a simdgroup would push each other out of the processor's cache.
  void** top = (void**)(stacks[i] + kStack - i % kLanes * (kPage / kLanes));
  *--top = nullptr;  // the return address of fiber_main, which does not return
  *--top = (void*)fiber_main;
  fibers[i].stack_pointer = top;
}

[[noreturn]] void diverged(int a, int b) {
  static char text[200];
  const uint at[] = {simdgroups[a / kLanes].at[a % kLanes], simdgroups[b / kLanes].at[b % kLanes]};
  const bool returned[] = {at[0] >> 24 == kDone, at[1] >> 24 == kDone};
  const int line[] = {int(at[0] & 0xffffff), int(at[1] & 0xffffff)};
  const bool meeting = at[0] >> 24 == kBarrier && at[1] >> 24 == kBarrier;
  snprintf(text, sizeof text, "divergent %s: thread %d is at line %d%s, thread %d at line %d%s",
           meeting ? "threadgroup barrier" : "simd operation or barrier", a, line[0], returned[0] ? " (returned)" : "", b, line[1],
           returned[1] ? " (returned)" : "");
  emulator_current = &fibers[a];
  emulator_fail(text, returned[0] ? line[1] : line[0]);
}

// Runs one simdgroup until all its lanes are at a threadgroup barrier or have returned.
void run_simdgroup(Simdgroup& group) {
  emulator_current = group.leader;
  hand_over(&scheduler, group.leader);
  emulator_check_lanes(&group);
}

// Puts the threads first..first+present-1 into a simdgroup, in running order.
void link(Simdgroup& group, int first, int present) {
  group.present = uint(present);
  group.leader = &fibers[first + nth(0, present)];
  for (int i = 0; i < present; ++i) {
    Fiber& fiber = fibers[first + nth(i, present)];
    fiber.next = &fibers[first + nth((i + 1) % present, present)];
    fiber.group = &group;
    fiber.lane = uint(&fiber - fibers - first);
    fiber.slot = &group.slots[0][fiber.lane];
    fiber.thread = &threads[&fiber - fibers];
  }
}

void run_threadgroup() {
  shared_count = 0;
  const int groups = (count + kLanes - 1) / kLanes;
  for (int i = 0; i < groups; ++i) link(simdgroups[i], i * kLanes, count - i * kLanes < kLanes ? count - i * kLanes : kLanes);
  do {
    for (int i = 0; i < groups; ++i) run_simdgroup(simdgroups[nth(i, groups)]);
    for (int i = 1; i < groups; ++i)
      if (simdgroups[i].at[0] != simdgroups[0].at[0]) diverged(0, i * kLanes);
  } while (simdgroups[0].at[0] >> 24 != kDone);
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
        start(i);
        threads[i] = {{origin.x + x, origin.y + y, origin.z + z}, {x, y, z}, group, grid, here, groups, size,
                      uint(i), uint(i % kLanes), uint(i / kLanes), kLanes, uint((count + kLanes - 1) / kLanes)};
      }
}

void describe(const char* what, int line) {
  const uint3 at = emulator_current->thread->thread_position_in_grid;
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
Fiber* emulator_current;
int emulator_poison = 0xff;
unsigned long emulator_products = 0;
int emulator_last_only = 0;  // run only the last threadgroup

void emulator_fail(const char* what, int line) {
  describe(what, line);
  fault_pc = nullptr;
  siglongjmp(failure, 1);
}

// All lanes must be at the same operation in the same line.
void emulator_check_lanes(const Simdgroup* group) {
  uint different = 0;
  for (uint lane = 1; lane < group->present; ++lane) different |= group->at[lane] ^ group->at[0];
  if (!different) return;
  const int first = int((const Group*)group - simdgroups) * kLanes;
  int other = 0;
  while (group->at[other] == group->at[0]) ++other;
  diverged(first, first + other);
}

// A barrier that does not order the memory through which threads meet is none: they run on as if it were not there.
void emulator_barrier(bool whole_threadgroup, int memory, int line) {
  if (!(memory & (shared_count ? kThreadgroupMemory : kDeviceMemory | kThreadgroupMemory))) return;
  if (whole_threadgroup) wait_for_threadgroup(kBarrier, line);
  else wait_for_lanes(emulator_current, kSimdBarrier, line);
}

void emulator_threadgroup_memory(void* memory, size_t bytes, int line) {
  size_t total = bytes;
  for (int i = 0; i < shared_count; ++i) {
    if (shared[i].memory == memory) return;
    total += shared[i].bytes;
  }
  if (total > kSharedLimit) emulator_fail("more than 32 KiB of threadgroup memory", line);
  shared[shared_count++] = {memory, bytes};
  memset(memory, emulator_poison, bytes);
}

// A buffer of `bytes`, aligned to 16 bytes, against the guard above or below; everything in it is poison, except in a
// huge one, of which only what is used may take memory.
void* emulator_buffer(size_t bytes, int high) {
  Buffer& b = buffers[buffer_count++];
  b.bytes = bytes;
  b.usable = (bytes + kPage) / kPage * kPage;
  b.region = (char*)mmap(nullptr, 2 * kGuard + b.usable, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (b.region == MAP_FAILED) return nullptr;
  mprotect(b.region + kGuard, b.usable, PROT_READ | PROT_WRITE);
  if (b.usable < kHuge) memset(b.region + kGuard, emulator_poison, b.usable);
  b.base = b.region + kGuard + (high ? (b.usable - bytes) / 16 * 16 : 0);
  return b.base;
}

void emulator_read_only(int i) { mprotect(buffers[i].region + kGuard, buffers[i].usable, PROT_READ); }

// The first byte outside of buffer i, but on its pages, that is no longer poison; 0 if all are.
int emulator_spilled(int i) {
  const Buffer& b = buffers[i];
  if (b.usable >= kHuge) return 0;
  const char *const from = b.region + kGuard, *const to = from + b.usable;
  for (const char* at = from; at < b.base; ++at)
    if ((unsigned char)*at != emulator_poison) return 1;
  for (const char* at = b.base + b.bytes; at < to; ++at)
    if ((unsigned char)*at != emulator_poison) return 1;
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
  } else {
    const uint total = groups.x * groups.y * groups.z;
    for (uint i = emulator_last_only ? total - 1 : 0; i < total; ++i) {
      const uint at = reversed && !emulator_last_only ? total - 1 - i : i;
      prepare({at % groups.x, at / groups.x % groups.y, at / groups.x / groups.y}, *grid, *size, groups);
      run_threadgroup();
    }
  }
  for (int i = 0; i < 5; ++i) sigaction(numbers[i], &old[i], nullptr);
  sigaltstack(&before, nullptr);
  return result;
}
}
