// What the emulator's run-time part and the code around a kernel agree on. C headers only: a kernel that says
// std:: must not compile.
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef unsigned int uint;
typedef unsigned short ushort;
typedef unsigned char uchar;

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

struct Slot {
  alignas(16) unsigned char bytes[16];
};

// What the 32 lanes of a simdgroup put forward for the operation that they are all at.
struct Lanes {
  const Slot* slots;
  uint present;  // lanes 0..present-1 exist
  uint self;
};

Lanes emulator_simd(const void* value, size_t bytes, int operation, int line);
void emulator_barrier(bool whole_threadgroup, int line);
void emulator_threadgroup_memory(void* memory, size_t bytes, int line);
[[noreturn]] void emulator_fail(const char* what, int line);
float emulator_wrong_by(float exact, float ulps);  // in adversarial mode: wrong by up to `ulps`, else exact
extern int emulator_adversarial;
extern int emulator_poison;
}
