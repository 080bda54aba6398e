// Declarations only: enough of Metal's library, in C++ for OpenCL, to check types and address spaces of a kernel.
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#define device __global
#define constant __constant
#define threadgroup __local
#define thread __private
#define MLX_MTL_PRAGMA_UNROLL _Pragma("clang loop unroll(full)")
typedef __SIZE_TYPE__ size_t;
typedef unsigned char uchar, uint8_t;
typedef signed char int8_t;
typedef unsigned short ushort, uint16_t;
typedef short int16_t;
typedef unsigned int uint, uint32_t;
typedef int int32_t;
typedef unsigned long ulong, uint64_t;
typedef long int64_t;
typedef half float16_t;
typedef float float2 __attribute__((ext_vector_type(2)));
typedef float float4 __attribute__((ext_vector_type(4)));
typedef uint uint3 __attribute__((ext_vector_type(3)));

// Converts to float by itself and from it only when told to. A method for each address space it can lie in.
struct bfloat16_t {
  ushort bits;
  bfloat16_t() = default;
  explicit bfloat16_t(float value);
  operator float() const;
  operator float() const __constant;
};

namespace metal {
enum class mem_flags { mem_none, mem_device, mem_threadgroup };
void threadgroup_barrier(mem_flags);
void simdgroup_barrier(mem_flags);
float fabs(float);
float fma(float, float, float);
float max(float, float);
float min(float, float);
float rint(float);
int max(int, int);
int min(int, int);
uint max(uint, uint);
uint min(uint, uint);
namespace precise {
float exp(float);
float log(float);
float rsqrt(float);
}  // namespace precise
namespace fast {
float exp(float);
float exp2(float);
float log(float);
}  // namespace fast
float exp(float);
template <typename T> T simd_sum(T);
template <typename T> T simd_max(T);
template <typename T> T simd_shuffle_xor(T, ushort);
template <typename T> T simd_shuffle_down(T, ushort);
template <typename T> T simd_shuffle_up(T, ushort);
template <typename T, int R, int C> struct simdgroup_matrix {
  float2 elements;
  __private float2& thread_elements();
};
template <typename T>
void simdgroup_multiply_accumulate(__private simdgroup_matrix<T, 8, 8>&, simdgroup_matrix<T, 8, 8>, simdgroup_matrix<T, 8, 8>,
                                   simdgroup_matrix<T, 8, 8>);
}  // namespace metal
using namespace metal;
#define double metal_has_no_double
