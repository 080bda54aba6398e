// Enough of the Metal Shading Language, in CUDA C++, to compile a kernel's body for NVIDIA's GPUs. Every function here runs
// on the device (NVRTC's -default-device). TYPES_OF_MLX: inside MLX's CUDA back-end, whose headers bring the other types.
typedef unsigned short ushort;
typedef unsigned int uint;
#ifndef TYPES_OF_MLX
typedef unsigned char uint8_t;
typedef int int32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
struct float16_t {
  ushort bits;
  float16_t() = default;
  explicit float16_t(float value) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value)); }
  operator float() const {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
  }
};
struct bfloat16_t {
  ushort bits;
  bfloat16_t() = default;
  explicit bfloat16_t(float value) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value)); }
  operator float() const { return __uint_as_float(uint(bits) << 16); }
};
#endif
#define MLX_MTL_PRAGMA_UNROLL _Pragma("unroll")
#define SHARED_ARRAY(type, name, ...) __shared__ type name __VA_ARGS__

namespace metal {
enum class mem_flags { mem_none, mem_device, mem_threadgroup };
inline void threadgroup_barrier(mem_flags) { __syncthreads(); }
inline float fabs(float x) { return ::fabsf(x); }
inline float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
inline float max(float a, float b) { return ::fmaxf(a, b); }
inline float min(float a, float b) { return ::fminf(a, b); }
inline float rint(float x) { return ::rintf(x); }
inline int min(int a, int b) { return a < b ? a : b; }
namespace precise {
inline float exp(float x) { return ::expf(x); }
inline float rsqrt(float x) { return ::rsqrtf(x); }
}  // namespace precise
namespace fast {
inline float exp(float x) { return ::__expf(x); }
}  // namespace fast
template <typename T>
inline T simd_shuffle_xor(T value, ushort mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
template <typename T>
inline T simd_shuffle_up(T value, ushort away) { return __shfl_up_sync(0xffffffffu, value, away); }
// 8 x 8 numbers over 32 lanes, each with two neighbours of a row.
template <typename T, int Rows, int Columns>
struct simdgroup_matrix {
  float elements[2];
  float* thread_elements() { return elements; }
};
template <typename M>
inline void simdgroup_multiply_accumulate(M& result, const M& a, const M& b, const M& c) {
  const uint lane = (threadIdx.y * blockDim.x + threadIdx.x) % 32, row = lane & 0x16, column = lane & 0x9;
  float sums[2] = {c.elements[0], c.elements[1]};
  for (uint k = 0; k < 8; ++k) {
    const uint left = row | (k & 4) << 1 | (k >> 1 & 1), right = (k & 4) << 2 | (k & 3) << 1 | column;
    const float low = __shfl_sync(0xffffffffu, a.elements[0], left), high = __shfl_sync(0xffffffffu, a.elements[1], left);
    for (int j = 0; j < 2; ++j) {
      sums[j] = ::fmaf(k & 1 ? high : low, __shfl_sync(0xffffffffu, b.elements[j], right), sums[j]);
    }
  }
  for (int j = 0; j < 2; ++j) result.elements[j] = sums[j];
}
template <typename T>
inline T simd_sum(T value) {
  for (uint mask = 1; mask < 32; mask *= 2) value += simd_shuffle_xor(value, ushort(mask));
  return value;
}
}  // namespace metal
using metal::mem_flags;
using metal::simd_sum;
using metal::threadgroup_barrier;
namespace fast = metal::fast;

inline uint3 position(uint3 group, dim3 size, uint3 inside) {
  return {group.x * size.x + inside.x, group.y * size.y + inside.y, group.z * size.z + inside.z};
}
// Metal's last threadgroups are cut off at the grid's end.
inline uint3 inside_grid(uint3 group, dim3 size, uint3 threads) {
  return {::min(size.x, threads.x - group.x * size.x), ::min(size.y, threads.y - group.y * size.y),
          ::min(size.z, threads.z - group.z * size.z)};
}
inline uint index_in_group() { return (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x; }
