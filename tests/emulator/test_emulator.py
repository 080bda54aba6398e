"""The emulator itself: it notices every planted fault, lets the correct twins pass, and agrees with what is known."""

from __future__ import annotations

import re

import mlx.core as mx
import numpy as np
import pytest

from tests.emulator.emulator import EmulatedKernel, EmulatorError, Options, _compare, metal_kernel
from tests.emulator.faults import FAULTS, Fault
from tests.emulator.running import POISON
from tests.emulator.texts import body_for_host, signature, texts

pytestmark = pytest.mark.usefixtures("emulated")


def kernel(body: str, **definition: object) -> EmulatedKernel:
    return metal_kernel("tried", ["a", "n"], ["o"], body, **definition)  # type: ignore[arg-type]


def launch(body: str, options: tuple[tuple[str, object], ...] = ()) -> np.ndarray:
    defaults = {"grid": (128, 1, 1), "threadgroup": (64, 1, 1)} | dict(options)
    a = mx.arange(1, 129, dtype=mx.float32)
    out = kernel(body)(inputs=[a, 128], output_shapes=[(128,)], output_dtypes=[mx.float32], **defaults)  # type: ignore[arg-type]
    return np.array(out[0])


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_planted_faults_are_noticed(fault: Fault) -> None:
    with pytest.raises(EmulatorError) as caught:
        launch(fault.body, fault.options)
    assert re.search(fault.says, str(caught.value)), str(caught.value)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.twin], ids=lambda fault: fault.name)
def test_correct_twins_pass(fault: Fault) -> None:
    launch(fault.twin or "")


def test_errors_name_buffer_byte_thread_and_line() -> None:
    with pytest.raises(
        EmulatorError, match=r"out of bounds of buffer 0 at byte 4000\d+ of 512; thread \(\d+, 0, 0\), kernel line 8"
    ):
        launch("const int i = int(thread_position_in_grid.x);\no[i] = 0;\nif (i == 5) o[i] = a[i + 1000000];")


def test_it_goes_on_after_a_fault() -> None:
    divergent = next(fault for fault in FAULTS if fault.name == "divergent barrier")
    for body in (FAULTS[1].body, divergent.body):
        with pytest.raises(EmulatorError):
            launch(body)
        np.testing.assert_array_equal(launch("o[thread_position_in_grid.x] = 2;"), np.full(128, 2.0))


def test_mlx_checks_the_arguments() -> None:
    with pytest.raises(ValueError, match="inputs"):
        kernel("o[0] = a[0];")(
            inputs=[mx.zeros((3,))],
            output_shapes=[(1,)],
            output_dtypes=[mx.float32],
            grid=(1, 1, 1),
            threadgroup=(1, 1, 1),
        )


def test_more_buffers_than_metal_has() -> None:
    for count in (30, 31):
        names = [f"i{i}" for i in range(count)]
        text = "o[thread_position_in_grid.x] = " + " + ".join(f"{name}[0]" for name in names) + ";"
        launch = {"output_shapes": [(9,)], "output_dtypes": [mx.float32], "grid": (9, 1, 1), "threadgroup": (9, 1, 1)}
        run = metal_kernel("wide", names, ["o"], text)
        given = [mx.ones((9,))] * count
        if count == 30:
            assert run(inputs=given, **launch)[0].tolist() == [30.0] * 9
        else:
            with pytest.raises(EmulatorError, match="32 buffers"):
                run(inputs=given, **launch)


def test_grids_are_threads_with_ragged_edges() -> None:
    """Positions, sizes and indices of every thread of an uneven 3-D grid."""
    body = """
    const uint3 p = thread_position_in_grid;
    const uint at = (p.z * threads_per_grid.y + p.y) * threads_per_grid.x + p.x;
    o[at] = threadgroup_position_in_grid.x * 100 + thread_position_in_threadgroup.x * 10 + threads_per_threadgroup.x
          + 1000 * simdgroup_index_in_threadgroup
          + (thread_index_in_simdgroup == thread_index_in_threadgroup % 32 ? 0 : 0.5f);
    """
    out = kernel(body)(
        inputs=[mx.zeros((9,)), 1],
        output_shapes=[(2, 3, 10)],
        output_dtypes=[mx.float32],
        grid=(10, 3, 2),
        threadgroup=(4, 3, 2),
    )[0]
    x = np.arange(10)
    expected = x // 4 * 100 + x % 4 * 10 + np.where(x >= 8, 2, 4)
    np.testing.assert_array_equal(np.array(out), np.broadcast_to(expected, (2, 3, 10)))


def test_simd_operations() -> None:
    head = "const uint i = thread_position_in_grid.x;\n"
    a = np.arange(1, 129, dtype=np.float32).reshape(4, 32)
    lane = np.arange(32)
    cases = {
        "simd_sum(a[i])": a.sum(1, keepdims=True) + 0 * a,
        "simd_max(a[i])": a.max(1, keepdims=True) + 0 * a,
        "simd_min(a[i])": a.min(1, keepdims=True) + 0 * a,
        "simd_shuffle_xor(a[i], 5)": a[:, lane ^ 5],
        "simd_broadcast(a[i], 7)": a[:, [7]] + 0 * a,
        "i % 32 < 31 ? 0 : simd_sum(0.0f)": None,
        "float(simd_any(a[i] > 100))": np.repeat(a.max(1, keepdims=True) > 100, 32, 1),
        "float(simd_all(a[i] > 32))": np.repeat(a.min(1, keepdims=True) > 32, 32, 1),
    }
    for text, expected in cases.items():
        if expected is None:
            with pytest.raises(EmulatorError, match="divergent"):
                launch(f"{head}o[i] = {text};")
        else:
            np.testing.assert_array_equal(launch(f"{head}o[i] = {text};").reshape(4, 32), expected)


def test_matrix_products() -> None:
    """One simdgroup loads two 8 x 8 matrices, multiplies them, adds a third and stores the sum; and lane by lane."""
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal((8, 8)).astype(np.float32) for _ in range(3))
    whole = """
    metal::simdgroup_matrix<float, 8, 8> x, y, z;
    metal::simdgroup_load(x, a);
    metal::simdgroup_load(y, b);
    metal::simdgroup_load(z, c);
    metal::simdgroup_multiply_accumulate(z, x, y, z);
    metal::simdgroup_store(z, o);
    """
    # Where MLX's matrix kernels expect a lane's two numbers.
    by_lane = """
    const uint lane = thread_index_in_simdgroup;
    const uint quad = lane / 4;
    const uint row = (quad & 4) + (lane / 2) % 4;
    const uint column = (quad & 2) * 2 + (lane % 2) * 2;
    metal::simdgroup_matrix<float, 8, 8> x, y, z(0);
    for (int j = 0; j < 2; ++j) {
        x.thread_elements()[j] = a[row * 8 + column + j];
        y.thread_elements()[j] = b[row * 8 + column + j];
    }
    metal::simdgroup_multiply_accumulate(z, x, y, z);
    for (int j = 0; j < 2; ++j) o[row * 8 + column + j] = z.thread_elements()[j] + c[row * 8 + column + j];
    """
    # A matrix made of one number has it on its diagonal, a filled one everywhere: 2 b, and the sums of b's columns.
    filled = """
    metal::simdgroup_matrix<float, 8, 8> y, z, two(2.0f);
    metal::simdgroup_matrix<float, 8, 8> ones = metal::make_filled_simdgroup_matrix<float, 8, 8>(1.0f);
    metal::simdgroup_load(y, b);
    metal::simdgroup_multiply(z, two, y);
    metal::simdgroup_multiply_accumulate(z, ones, y, z);
    for (int j = 0; j < 2; ++j) z.thread_elements()[j] += 0.0f * (a[0] + c[0]);
    metal::simdgroup_store(z, o);
    """
    for body, expected in (
        (whole, a.astype(np.float64) @ b + c),
        (by_lane, a.astype(np.float64) @ b + c),
        (filled, 2.0 * b + b.sum(0, dtype=np.float64)),
    ):
        out = metal_kernel("product", ["a", "b", "c"], ["o"], body)(
            inputs=[mx.array(a), mx.array(b), mx.array(c)],
            output_shapes=[(8, 8)],
            output_dtypes=[mx.float32],
            grid=(32, 1, 1),
            threadgroup=(32, 1, 1),
        )[0]
        np.testing.assert_allclose(np.array(out), expected, atol=2e-6)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16, mx.int32, mx.uint8, mx.bool_])
def test_every_dtype_goes_through(dtype: mx.Dtype) -> None:
    a = (mx.arange(20) % 2 + (0 if dtype == mx.bool_ else 3)).astype(dtype)
    out = metal_kernel(
        "copy", ["a"], ["o"], "o[thread_position_in_grid.x] = static_cast<T>(a[thread_position_in_grid.x]);"
    )(
        inputs=[a],
        output_shapes=[(20,)],
        output_dtypes=[dtype],
        grid=(20, 1, 1),
        threadgroup=(32, 1, 1),
        template=[("T", dtype)],
    )[0]
    assert out.dtype == dtype and mx.array_equal(out, a)


def test_rounding_to_bfloat_is_to_nearest_even(emulated: Options) -> None:
    a = mx.array(np.random.default_rng(1).integers(0, 2**32, 4000, dtype=np.uint32)).view(mx.float32)
    a = mx.where(mx.isnan(a), mx.array(1.0), a)
    out = metal_kernel(
        "round", ["a"], ["o"], "o[thread_position_in_grid.x] = static_cast<bfloat16_t>(a[thread_position_in_grid.x]);"
    )(inputs=[a], output_shapes=[(4000,)], output_dtypes=[mx.bfloat16], grid=(4000, 1, 1), threadgroup=(64, 1, 1))[0]
    assert mx.array_equal(out.view(mx.uint16), a.astype(mx.bfloat16).view(mx.uint16))


def test_strided_inputs_shapes_and_initial_values() -> None:
    """elem_to_loc over a transposed input; an output that starts from a value; contiguous copies where asked for."""
    a = mx.arange(24, dtype=mx.float32).reshape(4, 6).T
    source = (
        "const uint i = thread_position_in_grid.x; if (i < 20) o[i] = a[elem_to_loc(i, a_shape, a_strides, a_ndim)];"
    )
    for contiguous in (True, False):
        out = metal_kernel("strided", ["a"], ["o"], source, ensure_row_contiguous=contiguous)(
            inputs=[a],
            output_shapes=[(24,)],
            output_dtypes=[mx.float32],
            grid=(24, 1, 1),
            threadgroup=(8, 1, 1),
            init_value=-1,
        )[0]
        np.testing.assert_array_equal(np.array(out)[:20], np.array(a).reshape(-1)[:20])
        assert (np.array(out)[20:] == -1).all()


def test_atomic_outputs() -> None:
    source = "const uint i = thread_position_in_grid.x;\n"
    source += "atomic_fetch_add_explicit(&o[i % 2], a[i], memory_order_relaxed);"
    out = metal_kernel("added", ["a"], ["o"], source, atomic_outputs=True)(
        inputs=[mx.ones((40,))],
        output_shapes=[(2,)],
        output_dtypes=[mx.float32],
        grid=(40, 1, 1),
        threadgroup=(8, 1, 1),
        init_value=0,
    )[0]
    assert out.tolist() == [20.0, 20.0]


def test_what_it_compiles_is_what_mlx_writes(emulated: Options) -> None:
    """Byte for byte; the host's only changes are threadgroup variables, comments, and the last instantiation."""
    source = "threadgroup float s[N];\ns[0] = a[0]; o[0] = static_cast<T>(s[0] * b);"
    template = [("T", mx.float16), ("N", 32), ("F", True)]
    arguments = {"output_shapes": [(1,)], "output_dtypes": [mx.float16], "grid": (1, 1, 1), "threadgroup": (1, 1, 1)}
    names = ("shown", ["a", "b"], ["o"], source, "// a header\n")
    metal_kernel(*names)(inputs=[mx.ones((9,)), 2], template=template, **arguments)  # type: ignore[arg-type]
    compiled = emulated.seen[-1]

    def mlx_own(a: mx.array) -> list[mx.array]:
        real = EmulatedKernel(
            name="shown", input_names=["a", "b"], output_names=["o"], source=source, header="// a header\n"
        ).real
        return list(real(inputs=[a, 2], template=template, verbose=True, **arguments))

    assert compiled == texts(mlx_own, mx.ones((9,)))[0]
    parts = signature(compiled)
    assert [(a.space, a.type, a.pointer, a.name) for a in parts.arguments] == [
        ("device", "float", True, "a"), ("constant", "int32_t", False, "b"), ("device", "float16_t", True, "o"),
    ]  # fmt: skip
    assert body_for_host(compiled).splitlines()[1:-2] == [
        line.replace("threadgroup float s[N];", "SHARED_ARRAY(float, s, [N]);") if "threadgroup float" in line else line
        for line in compiled.split("\ntemplate [[host")[0].splitlines()[1:-2]
    ]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_of_two_nans_one_is_as_good_as_the_other(dtype: type[np.floating]) -> None:
    first, second = (np.copysign(np.array([1, np.nan], dtype), np.array([1, sign], dtype)) for sign in (1, -1))
    assert first.tobytes() != second.tobytes()
    _compare([first], [second], ["y"])
    with pytest.raises(EmulatorError, match="output y, element 0, depends"):
        _compare([first], [np.array([2, np.nan], dtype)], ["y"])
    # Both kinds of poison are NaN in float16: an element that nothing wrote is still noticed.
    first, second = (np.full(2 * np.dtype(dtype).itemsize, poison, np.uint8).view(dtype) for poison in POISON)
    with pytest.raises(EmulatorError, match="output y, element 0, is never written"):
        _compare([first], [second], ["y"])
