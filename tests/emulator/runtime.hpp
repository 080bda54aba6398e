// What the emulator's run-time part and the code around a kernel agree on. C headers only: a kernel that says
// std:: must not compile.
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef unsigned int uint;
typedef unsigned short ushort;
typedef unsigned char uchar;
typedef unsigned long ulong;

struct uint3 {
  uint x, y, z;
};

// Everything MLX can add to a kernel's signature, for one thread.
struct Attributes {
  uint3 thread_position_in_grid, thread_position_in_threadgroup, threadgroup_position_in_grid;
  uint3 threads_per_grid, threads_per_threadgroup, threadgroups_per_grid, dispatch_threads_per_threadgroup;
  uint thread_index_in_threadgroup, thread_index_in_simdgroup, simdgroup_index_in_threadgroup;
  uint threads_per_simdgroup, simdgroups_per_threadgroup;
};

extern "C" {
typedef void (*Entry)(void** buffers, const Attributes& thread);

// What lanes put forward. These three are packed so that no check for alignment, which is for kernels, slows them down.
struct Slot {
  unsigned char bytes[16];
};

struct Fiber;
struct [[gnu::packed]] Simdgroup {
  Slot slots[2][32], results[2];  // two of each: a lane may be at the next operation before others have read this one's
  uint at[32];                    // what each lane waits for: an Operation and a line
  Fiber* leader;                  // the lane that runs first
  uint present;                   // lanes 0..present-1 exist
};

// A thread of the grid.
struct [[gnu::packed]] Fiber {
  void** stack_pointer;  // where its registers lie while it waits
  Fiber* next;           // who runs when it waits; after the last lane comes the first
  Simdgroup* group;
  Slot* slot;  // where it puts its next value
  uint lane;
  const Attributes* thread;
};

extern Fiber* emulator_current;
extern int emulator_poison;
extern unsigned long emulator_products;  // 8 x 8 matrix products since it was set to 0
void emulator_barrier(bool whole_threadgroup, int memory, int line);
void emulator_check_lanes(const Simdgroup* group);
void emulator_threadgroup_memory(void* memory, size_t bytes, int line);
[[noreturn]] void emulator_fail(const char* what, int line);
}

enum Operation { kNone, kSum, kMax, kMin, kShuffle, kXor, kDown, kUp, kBroadcast, kAny, kAll, kMultiply, kSimdBarrier, kBarrier, kDone };
enum Memory { kDeviceMemory = 1, kThreadgroupMemory = 2 };  // what a barrier orders

#define INLINE static inline __attribute__((always_inline))
#ifdef __AVX512F__
#define WIDE_REGISTERS                                                                                        \
  , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", \
      "xmm28", "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6", "k7"
#else
#define WIDE_REGISTERS
#endif

// Leaves this stack in `from` and goes on where `to` was left. The compiler keeps what it still needs on the stack. A
// jump is predicted, where a return would not be. (No red zone: -mno-red-zone.)
INLINE void hand_over(Fiber* from, const Fiber* to) {
  void** goal = to->stack_pointer;
  asm volatile(
      "pushq %%rbp\n\t"
      "leaq 1f(%%rip), %%rdx\n\t"
      "pushq %%rdx\n\t"
      "movq %%rsp, (%0)\n\t"
      "movq %1, %%rsp\n\t"
      "popq %%rdx\n\t"
      "jmpq *%%rdx\n"
      "1:\n\t"
      "popq %%rbp"
      : "+D"(from), "+S"(goal)  // the stack pointer is what a Fiber begins with
      :
      : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1", "xmm2", "xmm3",
        "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "memory",
        "cc" WIDE_REGISTERS);
}

// The current lane waits at an operation until all others have come to it. The leader, which goes on first, checks that.
INLINE void wait_for_lanes(Fiber* self, Operation operation, int line) {
  self->group->at[self->lane & 31] = uint(operation) << 24 | uint(line);
  Fiber* const next = self->next;
  emulator_current = next;
  hand_over(self, next);
  if (self->group->leader == self) emulator_check_lanes(self->group);
}

// A lane at an operation that all have come to, with its own slot; the others' lie beside it.
struct Meeting {
  Fiber* self;
  Slot* slot;

  bool leads() const { return self->group->leader == self; }
  const Slot* lane(uint i) const { return slot + int(i - self->lane); }
  // For what is the same in all lanes: the leader works it out before the others go on.
  Slot* result() const { return &self->group->results[0] + ((uintptr_t)slot / sizeof(Simdgroup::slots[0]) & 1); }
};

INLINE Meeting put_forward(const void* value, size_t bytes, Operation operation, int line) {
  Fiber* const self = emulator_current;
  Slot* const slot = self->slot;
  self->slot = (Slot*)((uintptr_t)slot ^ sizeof(Simdgroup::slots[0]));
  __builtin_memcpy(slot, value, bytes);
  wait_for_lanes(self, operation, line);
  return {self, slot};
}
