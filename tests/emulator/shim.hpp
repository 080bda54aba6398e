// Enough of the Metal Shading Language, in C++, to compile a kernel's text as MLX writes it. What Metal has not
// must not be here either: no double, no std::, no expm1, no implicit conversion from float to bfloat.
#pragma once
#include "runtime.hpp"

#define device
#define constant
#define thread
#define threadgroup
#define MLX_MTL_PRAGMA_UNROLL _Pragma("GCC unroll 16")
#define MLX_MTL_CONST static constexpr const
#define SHARED_ARRAY(type, name, ...) \
  static type name __VA_ARGS__;       \
  emulator_threadgroup_memory(&name, sizeof(name), __LINE__)

typedef _Float16 half;
typedef _Float16 float16_t;

struct bfloat {
  uint16_t bits;
  bfloat() = default;
  template <typename T>
  explicit bfloat(T value) {
    float wide = float(value);
    uint32_t raw;
    __builtin_memcpy(&raw, &wide, 4);
    const bool nan = (raw & 0x7fffffffu) > 0x7f800000u;
    bits = nan ? uint16_t(0x7fc0) : uint16_t((raw + 0x7fffu + ((raw >> 16) & 1u)) >> 16);
  }
  operator float() const {
    uint32_t raw = uint32_t(bits) << 16;
    float wide;
    __builtin_memcpy(&wide, &raw, 4);
    return wide;
  }
};
typedef bfloat bfloat16_t;

template <typename T>
struct alignas(2 * sizeof(T)) vec2 {
  T x, y;
  T& operator[](int i) { return (&x)[i]; }
};
template <typename T>
struct alignas(4 * sizeof(T)) vec4 {
  T x, y, z, w;
  T& operator[](int i) { return (&x)[i]; }
};
typedef vec2<float> float2;
typedef vec4<float> float4;
typedef vec4<half> half4;
typedef vec2<uint> uint2;
typedef vec4<uint> uint4;
template <typename T>
inline vec4<T> operator+(vec4<T> a, vec4<T> b) {
  return {T(a.x + b.x), T(a.y + b.y), T(a.z + b.z), T(a.w + b.w)};
}

#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define LINE int line = __builtin_LINE()

namespace metal {
enum class mem_flags { mem_none = 0, mem_device = kDeviceMemory, mem_threadgroup = kThreadgroupMemory };
inline mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(int(a) | int(b)); }
inline void threadgroup_barrier(mem_flags flags, LINE) { emulator_barrier(true, int(flags), line); }
inline void simdgroup_barrier(mem_flags flags, LINE) { emulator_barrier(false, int(flags), line); }

#define UNARY(name, builtin) \
  inline float name(float x) { return builtin(x); }
UNARY(fabs, __builtin_fabsf)
UNARY(abs, __builtin_fabsf)
UNARY(floor, __builtin_floorf)
UNARY(ceil, __builtin_ceilf)
UNARY(rint, __builtin_rintf)
UNARY(sqrt, __builtin_sqrtf)
UNARY(tanh, __builtin_tanhf)
inline float rsqrt(float x) { return 1.0f / __builtin_sqrtf(x); }
inline bool isnan(float x) { return x != x; }
inline bool isinf(float x) { return __builtin_fabsf(x) == INFINITY; }
inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float copysign(float a, float b) { return __builtin_copysignf(a, b); }
inline float max(float a, float b) { return a > b || b != b ? a : b; }  // a NaN gives way to a number
inline float min(float a, float b) { return a < b || b != b ? a : b; }
inline float clamp(float x, float low, float high) { return min(max(x, low), high); }
#define INTEGERS(T)                                  \
  inline T max(T a, T b) { return a > b ? a : b; }   \
  inline T min(T a, T b) { return a < b ? a : b; }
INTEGERS(int)
INTEGERS(uint)
INTEGERS(long)
INTEGERS(unsigned long)

constexpr double operator""_d(long double value) { return double(value); }  // literals are single precision here
constexpr double kLog2 = 0.693147180559945309_d, kRound = 6755399441055744.0_d;  // adding 1.5 * 2^52 rounds to an integer
constexpr int kRoots = 32;

struct Roots {
  double of_two[kRoots];  // 2^(i / 32)
  Roots() {
    for (int i = 0; i < kRoots; ++i) of_two[i] = __builtin_exp2(double(i) / kRoots);
  }
};
static const Roots roots;

INLINE double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }

// e^r times the 32nd root of two to the power that the last bits of `shifted` hold: nearly always the float nearest to it.
// Inline, since a call for every exponential would cost more than all the rest of a kernel.
INLINE float exponential(double r, double shifted) {
  uint64_t power, bits;
  __builtin_memcpy(&power, &shifted, 8);
  __builtin_memcpy(&bits, roots.of_two + power % kRoots, 8);
  bits += power / kRoots << 52;
  double scale;
  __builtin_memcpy(&scale, &bits, 8);
  return float(fused(fused(r, 1.0_d / 6, 0.5_d), r * r, 1.0_d + r) * scale);
}
INLINE double bounded(float x) { return x < -160 ? -160 : x > 140 ? 140 : x; }  // a NaN stays one
INLINE float exact_exp2(float x) {
  const double bound = bounded(x), shifted = bound * kRoots + kRound;
  return exponential((bound - (shifted - kRound) / kRoots) * kLog2, shifted);
}
INLINE float exact_exp(float x) {
  const double bound = bounded(x), shifted = bound * (kRoots / kLog2) + kRound;
  return exponential(bound - (shifted - kRound) * (kLog2 / kRoots), shifted);
}

// Built with ADVERSARIAL, exponentials are wrong by what Metal allows: 1 a pseudo-random part of it, 2 all of it.
INLINE float wrong_by(float exact, float ulps) {
  if (!ADVERSARIAL || !(exact > 1e-36f) || exact > 1e38f) return exact;
  uint bits;
  __builtin_memcpy(&bits, &exact, 4);
  // A function of the value, not of when it is asked for: the same value is always wrong in the same way.
  const uint noise = bits * 2654435761u;
  const float share = ADVERSARIAL == 2 ? 1.0f : float(noise >> 8) / 8388608.0f - 1.0f;
  bits += uint(int(__builtin_rintf(share * ulps)));
  float result;
  __builtin_memcpy(&result, &bits, 4);
  return result;
}

namespace precise {  // within 4 units in the last place
inline float exp(float x) { return wrong_by(exact_exp(x), 4.0f); }
inline float exp2(float x) { return wrong_by(exact_exp2(x), 4.0f); }
inline float log(float x) { return __builtin_logf(x); }
using metal::rsqrt;
using metal::sqrt;
using metal::tanh;
}  // namespace precise
namespace fast {  // within 3 + |2x| units
inline float exp(float x) { return wrong_by(exact_exp(x), 3.0f + __builtin_floorf(__builtin_fabsf(2.0f * x))); }
inline float exp2(float x) { return wrong_by(exact_exp2(x), 3.0f + __builtin_floorf(__builtin_fabsf(2.0f * x))); }
inline float log(float x) { return __builtin_logf(x); }
using metal::tanh;
}  // namespace fast
using precise::exp;
using precise::exp2;
using precise::log;

template <typename T>
INLINE T value_of(const Slot* slot) {
  T value;
  __builtin_memcpy(&value, slot, sizeof(T));
  return value;
}
template <typename T>
INLINE T lane(const Meeting& all, uint i, int line) {
  if (i >= all.self->group->present) emulator_fail("a value is taken from a lane that does not exist", line);
  return value_of<T>(all.lane(i));
}
template <typename T>
inline T lane_or_poison(const Meeting& all, uint i, int line) {
  T value;
  __builtin_memset(&value, emulator_poison, sizeof(T));
  return i < all.self->group->present ? lane<T>(all, i, line) : value;
}
template <typename T>
inline T simd_sum(T value, LINE) {
  const Meeting all = put_forward(&value, sizeof(T), kSum, line);
  if (all.leads()) {
    T parts[32];
    for (uint i = 0; i < 32; ++i) parts[i] = i < all.self->group->present ? lane<T>(all, i, line) : T(0);
    for (uint width = 1; width < 32; width *= 2)
      for (uint i = 0; i < 32; i += 2 * width) parts[i] = T(parts[i] + parts[i + width]);
    __builtin_memcpy(all.result(), parts, sizeof(T));
  }
  return value_of<T>(all.result());
}
#define REDUCE(name, code, expression)                                 \
  template <typename T>                                                \
  inline T name(T value, LINE) {                                       \
    const Meeting all = put_forward(&value, sizeof(T), code, line);    \
    if (all.leads()) {                                                 \
      T a = lane<T>(all, 0, line);                                     \
      for (uint i = 1; i < all.self->group->present; ++i) {            \
        const T b = lane<T>(all, i, line);                             \
        a = expression;                                                \
      }                                                                \
      __builtin_memcpy(all.result(), &a, sizeof(T));                   \
    }                                                                  \
    return value_of<T>(all.result());                                  \
  }
REDUCE(simd_max, kMax, (b > a ? b : a))
REDUCE(simd_min, kMin, (b < a ? b : a))
REDUCE(simd_any, kAny, (a || b))
REDUCE(simd_all, kAll, (a && b))
#define TAKE(name, code, take, index)                                  \
  template <typename T>                                                \
  inline T name(T value, ushort which, LINE) {                         \
    const Meeting all = put_forward(&value, sizeof(T), code, line);    \
    const uint self = all.self->lane;                                  \
    return take<T>(all, index, line);                                  \
  }
TAKE(simd_shuffle, kShuffle, lane, which)
TAKE(simd_broadcast, kBroadcast, lane, which)
TAKE(simd_shuffle_xor, kXor, lane, self ^ which)
TAKE(simd_shuffle_down, kDown, lane_or_poison, self + which)
TAKE(simd_shuffle_up, kUp, lane_or_poison, self - which)

// 8 x 8 numbers over 32 lanes, two neighbouring columns each, as MLX's steel/gemm/mma.h relies on.
template <typename T, int Rows, int Columns>
struct simdgroup_matrix {
  static_assert(Rows == 8 && Columns == 8, "Metal has 8 x 8 matrices");
  vec2<T> elements;
  simdgroup_matrix() = default;
  explicit simdgroup_matrix(T value);  // on the diagonal
  vec2<T>& thread_elements() { return elements; }
};
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;

INLINE uint matrix_row(uint lane) { return (lane >> 4 & 1) * 4 + (lane >> 1 & 3); }
INLINE uint matrix_column(uint lane) { return (lane >> 3 & 1) * 4 + (lane & 1) * 2; }
INLINE uint matrix_lane(uint row, uint column) { return (row & 4) << 2 | (column & 4) << 1 | (row & 3) << 1 | (column >> 1 & 1); }

template <typename T, int Rows, int Columns>
inline simdgroup_matrix<T, Rows, Columns>::simdgroup_matrix(T value) {
  const uint row = matrix_row(emulator_current->lane), column = matrix_column(emulator_current->lane);
  elements = {row == column ? value : T(0), row == column + 1 ? value : T(0)};
}
template <typename T, int Columns, int Rows = Columns>
inline simdgroup_matrix<T, Columns, Rows> make_filled_simdgroup_matrix(T value) {
  simdgroup_matrix<T, Columns, Rows> result;
  result.elements = {value, value};
  return result;
}

// The terms of a sum are added in an order that Metal leaves open: built with ADVERSARIAL, in the other one.
template <typename D, typename T, typename C>
inline void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>& result, simdgroup_matrix<T, 8, 8> a,
                                          simdgroup_matrix<T, 8, 8> b, simdgroup_matrix<C, 8, 8> c, LINE) {
  const float given[4] = {float(a.elements.x), float(a.elements.y), float(b.elements.x), float(b.elements.y)};
  const Meeting all = put_forward(given, sizeof given, kMultiply, line);
  if (all.self->group->present != 32) emulator_fail("a matrix product needs all 32 lanes", line);
  if (all.leads()) ++emulator_products;
  const uint row = matrix_row(all.self->lane), column = matrix_column(all.self->lane);
  float sums[2] = {float(c.elements.x), float(c.elements.y)};
  for (uint i = 0; i < 8; ++i) {
    const uint k = ADVERSARIAL ? 7 - i : i;
    float left[4], right[4];
    __builtin_memcpy(left, all.lane(matrix_lane(row, k)), sizeof left);
    __builtin_memcpy(right, all.lane(matrix_lane(k, column)), sizeof right);
    for (int j = 0; j < 2; ++j) sums[j] = __builtin_fmaf(left[k & 1], right[2 + j], sums[j]);
  }
  result.elements = {D(sums[0]), D(sums[1])};
}
template <typename D, typename T>
inline void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& result, simdgroup_matrix<T, 8, 8> a, simdgroup_matrix<T, 8, 8> b, LINE) {
  simdgroup_multiply_accumulate(result, a, b, simdgroup_matrix<D, 8, 8>(D(0)), line);
}
template <typename T, typename P>
inline void simdgroup_load(simdgroup_matrix<T, 8, 8>& to, P* from, ulong elements_per_row = 8) {
  const uint lane = emulator_current->lane;
  P* const at = from + matrix_row(lane) * elements_per_row + matrix_column(lane);
  to.elements = {at[0], at[1]};
}
template <typename T, typename P>
inline void simdgroup_store(simdgroup_matrix<T, 8, 8> from, P* to, ulong elements_per_row = 8) {
  const uint lane = emulator_current->lane;
  P* const at = to + matrix_row(lane) * elements_per_row + matrix_column(lane);
  at[0] = from.elements.x;
  at[1] = from.elements.y;
}

enum memory_order { memory_order_relaxed };
template <typename T>
struct atomic {
  T value;
};
template <typename T>
inline T atomic_fetch_add_explicit(atomic<T>* at, T value, memory_order) {
  const T before = at->value;
  at->value = T(before + value);
  return before;
}
}  // namespace metal

using namespace metal;

// The two helpers of MLX's own prelude that kernels use.
inline size_t elem_to_loc(uint element, const int* shape, const int64_t* strides, int ndim) {
  size_t at = 0;
  for (int i = ndim - 1; i >= 0; --i) {
    at += size_t(element % uint(shape[i])) * size_t(strides[i]);
    element /= uint(shape[i]);
  }
  return at;
}
template <typename T, typename U>
inline T ceildiv(T a, U b) {
  return (a + b - 1) / b;
}
#define double metal_has_no_double
