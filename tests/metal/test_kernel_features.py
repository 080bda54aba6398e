"""What custom kernels of MLX may use, feature by feature as MLX's own tests of them do, each against NumPy."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.emulator.emulator import EmulatorError, metal_kernel

pytestmark = pytest.mark.usefixtures("emulated")

HERE = "const uint i = thread_position_in_grid.x;\n"


def run(kernel: Any, *inputs: object, size: int, dtypes: tuple[mx.Dtype, ...] = (mx.float32,), **more: Any) -> list:
    """One thread for each of `size` elements of every output."""
    defaults = {"output_shapes": [(size,)] * len(dtypes), "grid": (size, 1, 1), "threadgroup": (32, 1, 1)}
    return [np.array(out) for out in kernel(inputs=list(inputs), output_dtypes=list(dtypes), **defaults | more)]


def test_arguments_of_every_kind() -> None:
    """Arrays, a small one of integers, numbers, 16-bit elements; a truth value, a number and a type as templates."""
    body = HERE + "const T half_step = a[i];\nif (ON) o[i] = half_step * n + few[i % 3] * K + low[i % 2];\n"
    body += "rounded[i] = int(a[i] * f);"
    kernel = metal_kernel("mixed", ["a", "few", "n", "f", "low"], ["o", "rounded"], body)
    a, few = np.linspace(-4, 4, 20, dtype=np.float32), np.array([5, -6, 7], np.int32)
    low = np.array([0.5, -2.0], np.float32)
    for on, kind in ((True, mx.float16), (True, mx.float32), (False, mx.float16)):
        template = [("T", kind), ("K", 3), ("ON", on)]
        given = (mx.array(a), mx.array(few), 2, 2.5, mx.array(low).astype(mx.bfloat16))
        dtypes = (mx.float32, mx.int32)
        o, rounded = run(kernel, *given, size=20, dtypes=dtypes, template=template, init_value=9)
        narrow = a.astype(np.float16 if kind == mx.float16 else np.float32).astype(np.float32)
        expected = narrow * 2 + np.resize(few, 20) * 3 + np.resize(low, 20)
        np.testing.assert_allclose(o, expected if on else np.full(20, 9.0), rtol=2e-3)
        np.testing.assert_array_equal(rounded, (a * np.float32(2.5)).astype(np.int32))


def test_a_template_in_the_header() -> None:
    header = "template <typename T>\nT twice(T x) {\n  return x + x;\n}\n"
    header += "inline int low_bits(uint x) { return int(x & 3u); }\n"
    kernel = metal_kernel("helped", ["a"], ["o"], HERE + "o[i] = twice(a[i]) + twice(low_bits(i));", header=header)
    a = np.arange(10, dtype=np.float32)
    (o,) = run(kernel, mx.array(a), size=10)
    np.testing.assert_array_equal(o, 2 * a + 2 * (np.arange(10) % 4))


def test_kernels_of_the_same_name_are_not_confused() -> None:
    for value in (1.0, 2.0):
        kernel = metal_kernel("twin", ["a"], ["o"], HERE + f"o[i] = a[i] + {value}f;")
        (o,) = run(kernel, mx.zeros((9,)), size=9)
        np.testing.assert_array_equal(o, np.full(9, value))


def test_positions_and_counts() -> None:
    body = HERE + "o[i] = float(threads_per_simdgroup + 100 * threadgroups_per_grid.x)"
    body += " + 1e3f * simdgroups_per_threadgroup + 1e4f * dispatch_threads_per_threadgroup.x;"
    (o,) = run(metal_kernel("counts", ["a"], ["o"], body), mx.zeros((1,)), size=100, threadgroup=(64, 1, 1))
    np.testing.assert_array_equal(o, np.full(100, 32 + 200 + 2000 + 640000))  # 64 threads, then 36: 2 simdgroups each


@pytest.mark.parametrize("contiguous", [True, False])
def test_three_dimensions_turned_and_repeated(contiguous: bool) -> None:
    wide = np.random.default_rng(0).standard_normal((4, 5, 6)).astype(np.float32)
    a = mx.broadcast_to(mx.array(wide).transpose(2, 0, 1)[::2, None, 1:, :], (3, 2, 3, 5))
    at = "i" if contiguous else "elem_to_loc(i, a_shape, a_strides, a_ndim)"
    body = HERE + f"o[i] = metal::precise::exp(a[{at}]);"
    kernel = metal_kernel("turned", ["a"], ["o"], body, ensure_row_contiguous=contiguous)
    (o,) = run(kernel, a, size=a.size)
    np.testing.assert_allclose(o, np.exp(np.array(a)).reshape(-1), rtol=2e-7)


def test_atomic_counting() -> None:
    """A histogram of integers from several threadgroups; what is added does not depend on the order."""
    body = HERE + "atomic_fetch_add_explicit(&o[a[i]], 1, memory_order_relaxed);"
    kernel = metal_kernel("histogram", ["a"], ["o"], body, atomic_outputs=True)
    a = np.random.default_rng(1).integers(0, 7, 200).astype(np.int32)
    shapes = {"output_shapes": [(7,)], "init_value": 0}
    (o,) = run(kernel, mx.array(a), size=200, dtypes=(mx.int32,), **shapes)
    np.testing.assert_array_equal(o, np.bincount(a, minlength=7))


def test_a_sum_over_a_threadgroup() -> None:
    """Simdgroups add up, then one thread adds up the simdgroups; the last threadgroup is not full."""
    body = """
    threadgroup float partial[4];
    const uint i = thread_position_in_grid.x;
    const float sum = simd_sum(a[i]);
    if (thread_index_in_simdgroup == 0) partial[simdgroup_index_in_threadgroup] = sum;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (thread_index_in_threadgroup == 0) {
        float total = 0;
        for (uint k = 0; k < simdgroups_per_threadgroup; ++k) total += partial[k];
        o[threadgroup_position_in_grid.x] = total;
    }
    """
    a = np.arange(300, dtype=np.float32)
    shapes = {"output_shapes": [(3,)], "threadgroup": (128, 1, 1)}
    (o,) = run(metal_kernel("sums", ["a"], ["o"], body), mx.array(a), size=300, **shapes)
    np.testing.assert_array_equal(o, [a[k : k + 128].sum() for k in (0, 128, 256)])


def test_templates_that_do_not_fit_are_refused() -> None:
    kernel = metal_kernel("bounded", ["a"], ["o"], HERE + "float f[N];\nf[0] = a[i];\no[i] = f[0];")
    with pytest.raises(EmulatorError, match="compile"):
        run(kernel, mx.zeros((9,)), size=9, template=[("N", -1)])
