"""Kernels with one fault each, and the same kernels without it: what the emulator must notice, and must not.

Each runs on 128 threads in threadgroups of 64; input a (128,) float32 and n = 128, output o (128,) float32.
"""

from __future__ import annotations

from dataclasses import dataclass

I = "const int i = int(thread_position_in_grid.x); const int t = int(thread_index_in_threadgroup);\n"
BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);\n"
SHARED = "threadgroup float s[64];\n"
MATRICES = "metal::simdgroup_matrix<float, 8, 8> x(0), d(0);\nx.thread_elements()[0] = a[i];\n"
OUT = "o[i] = d.thread_elements()[0] + d.thread_elements()[1];\n"


@dataclass(frozen=True, slots=True)
class Fault:
    """A faulty body, what the error must say, and the body made right (None: there is no close one)."""

    name: str
    body: str
    says: str
    twin: str | None = None
    options: tuple[tuple[str, object], ...] = ()


def _fault(name: str, body: str, says: str, twin: str | None = None, **options: object) -> Fault:
    return Fault(name, I + body, says, None if twin is None else I + twin, tuple(options.items()))


FAULTS = (
    _fault(
        "read just past the end",
        "o[i] = a[i + 1];",
        "is what was never written|out of bounds",
        "o[i] = a[(i + 1) % n];",
    ),
    _fault("read far past the end", "o[i] = a[i + 1000000];", "out of bounds of buffer 0", "o[i] = a[i];"),
    _fault("read before the start", "o[i] = a[i - 1];", "never written|out of bounds", "o[i] = a[i > 0 ? i - 1 : 0];"),
    _fault("read far before the start", "o[i] = a[i - 1000000];", "out of bounds of buffer 0"),
    _fault("write just past the end", "o[i + 1] = a[i];\nif (i == 0) o[0] = 0;", "out of bounds|outside of output o"),
    _fault(
        "write past the end by few bytes", "o[i] = a[i];\nif (i == 0) o[-1] = 0;", "out of bounds|outside of output o"
    ),
    _fault("write far past the end", "o[i + 4000000] = a[i];", "out of bounds of buffer 2 at byte"),
    _fault("write to an input", "o[i] = a[i];\n((float*)a)[i] = 0;", "write to read-only buffer 0", "o[i] = a[i];"),
    _fault(
        "output not written", "if (i != 77) o[i] = a[i];", "element 77, is never written", "o[i] = i != 77 ? a[i] : 0;"
    ),
    _fault(
        "uninitialised local",
        "float f;\nif (i > 3) f = a[i];\no[i] = f;",
        "uninitialised",
        "float f = 0;\nif (i > 3) f = a[i];\no[i] = f;",
    ),
    _fault(
        "uninitialised local that an optimiser fills in",
        "float f;\nif (i > 3) f = 2;\no[i] = f;",
        "uninitialised",
        "float f = 1;\nif (i > 3) f = 2;\no[i] = f;",
    ),
    _fault(
        "uninitialised sum",
        "float f;\nfor (int k = 0; k < i % 3; ++k) f += a[k];\no[i] = f;",
        "uninitialised|never written",
        "float f = 0;\nfor (int k = 0; k < i % 3; ++k) f += a[k];\no[i] = f;",
    ),
    _fault(
        "uninitialised choice",
        "int k;\nswitch (i) {\ncase 1: k = 5; break;\ncase 2: k = 5; break;\n}\no[i] = float(k);",
        "uninitialised|never written",
        "int k = 4;\nswitch (i) {\ncase 1: k = 5; break;\ncase 2: k = 5; break;\n}\no[i] = float(k);",
    ),
    _fault(
        "uninitialised local array",
        "float f[4];\nf[i % 3] = a[i];\no[i] = f[0] + f[1] + f[2] + f[3];",
        "uninitialised",
        "float f[4] = {0, 0, 0, 0};\nf[i % 3] = a[i];\no[i] = f[0] + f[1] + f[2] + f[3];",
    ),
    _fault(
        "uninitialised threadgroup memory",
        SHARED + "if (t > 0) s[t] = a[i];\n" + BARRIER + "o[i] = s[63 - t];",
        "never written|uninitialised",
        SHARED + "s[t] = a[i];\n" + BARRIER + "o[i] = s[63 - t];",
    ),
    _fault(
        "local array bounds",
        "float f[4] = {1, 2, 3, 4};\no[i] = f[i % 5];",
        "array bounds.*kernel line",
        "float f[4] = {1, 2, 3, 4};\no[i] = f[i % 4];",
    ),
    _fault("threadgroup array bounds", SHARED + "s[i] = a[i];\n" + BARRIER + "o[i] = s[t];", "array bounds"),
    _fault(
        "misaligned float4",
        "if (i < 31) o[i] = ((const device float4*)(a + 4 * i + 1))->x; else o[i] = 0;",
        "alignment",
        "if (i < 31) o[i] = ((const device float4*)(a + 4 * i))->x; else o[i] = 0;",
    ),
    _fault("missing barrier", SHARED + "s[t] = a[i];\no[i] = s[63 - t];", "order of threads|never written"),
    _fault(
        "missing barrier before reuse",
        SHARED
        + "s[t] = a[i];\n"
        + BARRIER
        + "const float f = s[63 - t];\ns[t] = f + 1;\n"
        + BARRIER
        + "o[i] = s[63 - t];",
        "order of threads",
        SHARED
        + "s[t] = a[i];\n"
        + BARRIER
        + "const float f = s[63 - t];\n"
        + BARRIER
        + "s[t] = f + 1;\n"
        + BARRIER
        + "o[i] = s[63 - t];",
    ),
    _fault(
        "simdgroup barrier for a threadgroup's work",
        SHARED + "s[t] = a[i];\nsimdgroup_barrier(mem_flags::mem_threadgroup);\no[i] = s[63 - t];",
        "order of threads|never written",
        SHARED + "s[t] = a[i];\nsimdgroup_barrier(mem_flags::mem_threadgroup);\no[i] = s[t ^ 31];",
    ),
    _fault(
        "barrier that orders no memory",
        SHARED + "s[t] = a[i];\nthreadgroup_barrier(mem_flags::mem_none);\no[i] = s[63 - t];",
        "order of threads|never written",
        SHARED + "s[t] = a[i];\n" + BARRIER + "o[i] = s[63 - t];",
    ),
    _fault(
        "barrier that orders the wrong memory",
        SHARED + "s[t] = a[i];\nthreadgroup_barrier(mem_flags::mem_device);\no[i] = s[63 - t];",
        "order of threads|never written",
        SHARED
        + "s[t] = a[i];\nthreadgroup_barrier(mem_flags::mem_device | mem_flags::mem_threadgroup);\no[i] = s[63 - t];",
    ),
    _fault(
        "device memory behind a barrier that orders none",
        "o[i] = a[i];\nthreadgroup_barrier(mem_flags::mem_none);\nconst float f = o[i ^ 63];\n"
        "threadgroup_barrier(mem_flags::mem_device);\no[i] = f;",
        "order of threads|never written",
        "o[i] = a[i];\nthreadgroup_barrier(mem_flags::mem_device);\nconst float f = o[i ^ 63];\n"
        "threadgroup_barrier(mem_flags::mem_device);\no[i] = f;",
    ),
    _fault(
        "divergent barrier",
        "if (t < 40) { " + BARRIER + "}\no[i] = a[i];",
        "divergent",
        "if (t < 64) { " + BARRIER + "}\no[i] = a[i];",
    ),
    _fault(
        "two barriers in two branches",
        "if (t < 32) {\n" + BARRIER + "} else {\n" + BARRIER + "}\no[i] = a[i];",
        "divergent threadgroup barrier",
    ),
    _fault(
        "early return before a barrier",
        "o[i] = a[i];\nif (i >= 100) return;\n" + BARRIER,
        "divergent.*returned",
        "o[i] = a[i];\nif (i >= 128) return;\n" + BARRIER,
    ),
    _fault(
        "divergent simd operation",
        "o[i] = a[i];\nif (t % 2) o[i] = simd_sum(a[i]);",
        "divergent simd",
        "const float f = simd_sum(a[i]);\no[i] = t % 2 ? f : a[i];",
    ),
    _fault(
        "two simd operations at once",
        "o[i] = t % 2 ? simd_sum(a[i]) : simd_max(a[i]);",
        "divergent simd",
    ),
    _fault(
        "simd operation where others meet a barrier",
        "if (t < 40) {\no[i] = simd_sum(a[i]);\n} else {\n" + BARRIER + "o[i] = 0;\n}",
        "divergent",
    ),
    _fault(
        "simd operation where the last lane has returned",
        "o[i] = a[i];\nif (t % 32 == 31) return;\no[i] = simd_sum(a[i]);",
        "divergent.*returned",
        "o[i] = a[i];\nif (t > 63) return;\no[i] = simd_sum(a[i]);",
    ),
    _fault(
        "shuffle from an absent lane",
        "o[i] = simd_shuffle(a[i], ushort(t + 1));",
        "lane that does not exist",
        "o[i] = simd_shuffle(a[i], ushort((t + 1) % 32));",
    ),
    _fault("shuffle down past the end", "o[i] = simd_shuffle_down(a[i], 1);", "never written|uninitialised"),
    _fault(
        "race between threadgroups",
        "o[i] = a[i];\no[64] = float(i / 64);",
        "order of threads",
        "o[i] = a[i];\nif (i == 64) o[64] = 1;",
    ),
    _fault("race on one element", "o[i] = a[i];\nif (t < 2) o[i - t] = float(t);", "order of threads"),
    _fault(
        "too much threadgroup memory",
        "threadgroup float s[6000];\nthreadgroup float r[3000];\ns[t] = r[t] = a[i];\no[i] = s[t];",
        "32 KiB",
        "threadgroup float s[5000];\nthreadgroup float r[3000];\ns[t] = r[t] = a[i];\no[i] = s[t];",
    ),
    _fault("too many threads", "o[i] = a[i];", "more than 1024", threadgroup=(2048, 1, 1), grid=(2048, 1, 1)),
    _fault(
        "bfloat from float",
        "bfloat16_t f = a[i];\no[i] = f;",
        "does not compile",
        "bfloat16_t f = static_cast<bfloat16_t>(a[i]);\no[i] = f;",
    ),
    _fault("double", "double f = a[i];\no[i] = f;", "does not compile", "float f = a[i];\no[i] = f;"),
    _fault("std", "o[i] = std::exp(a[i]);", "does not compile", "o[i] = metal::precise::exp(a[i]);"),
    _fault("expm1", "o[i] = expm1(a[i]);", "does not compile"),
    _fault("shift by too much", "o[i] = float(1 << (i - 64));", "shift", "o[i] = float(1 << (i % 31));"),
    _fault("integer overflow", "o[i] = float((i + 1) * 100000000);", "overflow"),
    _fault("division by zero", "o[i] = float(100 / i);", "division by zero|undefined", "o[i] = float(100 / (i + 1));"),
    _fault(
        "matrix product of some lanes",
        MATRICES + "if (t % 32 < 16) metal::simdgroup_multiply_accumulate(d, x, x, x);\n" + OUT,
        "divergent simd",
        MATRICES + "metal::simdgroup_multiply_accumulate(d, x, x, x);\n" + OUT,
    ),
    _fault(
        "matrix product of a simdgroup that is not full",
        MATRICES + "metal::simdgroup_multiply_accumulate(d, x, x, x);\n" + OUT,
        "all 32 lanes",
        threadgroup=(48, 1, 1),
    ),
    _fault(
        "matrix that accumulates onto nothing",
        MATRICES + "metal::simdgroup_matrix<float, 8, 8> c;\nmetal::simdgroup_multiply_accumulate(d, x, x, c);\n" + OUT,
        "uninitialised|never written",
        MATRICES
        + "metal::simdgroup_matrix<float, 8, 8> c(0);\nmetal::simdgroup_multiply_accumulate(d, x, x, c);\n"
        + OUT,
    ),
    _fault(
        "matrix stored where another simdgroup reads, without a barrier",
        "threadgroup float s[128];\n" + MATRICES + "metal::simdgroup_store(x, s + t / 32 * 64);\n"
        "metal::simdgroup_load(d, s + (1 - t / 32) * 64);\n" + OUT,
        "order of threads|never written",
        "threadgroup float s[128];\n"
        + MATRICES
        + "metal::simdgroup_store(x, s + t / 32 * 64);\n"
        + BARRIER
        + "metal::simdgroup_load(d, s + (1 - t / 32) * 64);\n"
        + OUT,
    ),
    _fault(
        "matrix loaded past the end",
        MATRICES + "metal::simdgroup_load(d, a + 100);\n" + OUT,
        "out of bounds|never written",
        MATRICES + "metal::simdgroup_load(d, a + 64);\n" + OUT,
    ),
    _fault(
        "matrix of another size",
        "metal::simdgroup_matrix<float, 4, 4> x(1);\no[i] = x.thread_elements()[0];",
        "does not compile",
        "metal::simdgroup_matrix<float, 8, 8> x(1);\no[i] = x.thread_elements()[0];",
    ),
    _fault(
        "matrices of two types in one product",
        MATRICES + "metal::simdgroup_matrix<half, 8, 8> c(1);\nmetal::simdgroup_multiply(d, x, c);\n" + OUT,
        "does not compile",
        MATRICES + "metal::simdgroup_matrix<float, 8, 8> c(1);\nmetal::simdgroup_multiply(d, x, c);\n" + OUT,
    ),
)
