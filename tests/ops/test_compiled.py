"""What numba compiles: as exact as the other forms, and only used where it pays."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest

from longmamba_mlx import ops
from longmamba_mlx.errors import UsageError
from longmamba_mlx.ops import backend, cpu
from longmamba_mlx.ops import oracle as oracles
from longmamba_mlx.ops.cpu import blas, bridge, numba_loops, numba_ops, numpy_ops
from longmamba_mlx.ops.inputs import ScanInputs
from tests.ops.cases import LENGTHS, selective_case, ssd_case
from tests.ops.test_scans import TOLERANCE, relative_error

SHARED = ("rms_norm", "gated_rms_norm", "gate", "linear", "causal_conv1d", "filtered_dt", "selective_scan", "ssd_scan")
NUMBA = bridge.CPU(lambda channels: numba_ops)
EDGES = [0.0, -0.0, 1e-30, -1e-30, 88.0, -88.0, 104.0, -104.0, 1e4, -1e4, 3e38, -3e38]


@pytest.fixture(params=["compiled", "interpreted"])
def scan(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every op through the compiled module: as machine code, and as the Python it was made of."""
    if request.param == "interpreted":
        for name, loop in vars(numba_loops).items():
            if hasattr(loop, "py_func"):
                monkeypatch.setattr(numba_loops, name, loop.py_func)
    return str(request.param)


def values(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", SHARED)
def test_stands_in_for_the_function_of_the_same_name(name: str) -> None:
    assert inspect.signature(getattr(numba_ops, name)) == inspect.signature(getattr(numpy_ops, name))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_equals_the_oracle(scan: str, length: int, reverse: bool) -> None:
    if scan == "interpreted" and length > 65:
        pytest.skip("slow")
    case = selective_case(batch=1 + length % 2, length=length, seed=length) | {"reverse": reverse}
    y, state, kept = NUMBA.selective_scan(ScanInputs(**case, return_kept=True))
    expected_y, expected_state, expected_kept = oracles.selective_scan(**case)
    assert relative_error(y, expected_y) < TOLERANCE["float32"]
    assert relative_error(state, expected_state) < TOLERANCE["float32"]
    np.testing.assert_array_equal(np.array(kept), expected_kept)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("length", [1, 2, 65])
def test_ssd_equals_the_oracle(scan: str, length: int, groups: int) -> None:
    case = ssd_case(batch=2, length=length, groups=groups, seed=length)
    y, state, kept = NUMBA.ssd_scan(ScanInputs(**case, return_kept=True))
    expected_y, expected_state, expected_kept = oracles.ssd_scan(**case)
    assert relative_error(y, expected_y) < TOLERANCE["float32"]
    assert relative_error(state, expected_state) < TOLERANCE["float32"]
    np.testing.assert_array_equal(np.array(kept), expected_kept)


def inputs(length: int, channels: int, size: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    x, dt = rng.standard_normal((1, length, channels)), rng.random((1, length, channels)) ** 4 * 6
    A = -np.arange(1, size + 1)[:, None] * rng.uniform(0.5, 2, (size, channels))
    B, C = rng.standard_normal((2, 1, length, size))
    return [array.astype(np.float32) for array in (x, dt, A, B, C, rng.standard_normal((1, size, channels)))]


@pytest.mark.parametrize("channels", [1, 127, 128, 300])
def test_equals_numpy_for_any_width(channels: int) -> None:
    given = inputs(40, channels, 16)
    state = given[-1].copy()
    y, expected = numba_ops.selective_scan(*given[:-1], state), numpy_ops.selective_scan(*given)
    np.testing.assert_allclose(y, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    np.testing.assert_allclose(state, given[-1], rtol=0, atol=2e-6 * np.abs(given[-1]).max())


def test_chunks_and_filtered_tokens_change_no_bit() -> None:
    x, dt, A, B, C, state = inputs(50, 130, 16)
    dt[:, 10:20] = 0.0
    whole, before = state.copy(), state.copy()
    y = numba_ops.selective_scan(x, dt, A, B, C, whole)
    parts = [slice(0, 1), slice(1, 10), slice(10, 20), slice(20, 50)]
    pieces = []
    for part in parts:
        if part.start == 10:
            before = state.copy()
        pieces.append(numba_ops.selective_scan(x[:, part], dt[:, part], A, B[:, part], C[:, part], state))
        if part.start == 10:
            np.testing.assert_array_equal(state, before)
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), y)
    np.testing.assert_array_equal(state, whole)


def test_not_a_number_stays_one() -> None:
    x, dt, A, B, C, state = inputs(8, 4, 3)
    dt[0, 2, 1] = np.nan
    y = numba_ops.selective_scan(x, dt, A, B, C, state)
    assert np.isnan(y[0, 2:, 1]).all()
    assert np.isfinite(y[0, :, [0, 2, 3]]).all()


@pytest.mark.parametrize("length", [1, 2, 4, 7])
def test_tokens_that_are_filtered_out_change_no_bit_of_a_heads_state(length: int) -> None:
    x, B, C = values(1, length, 4, 8), values(1, length, 2, 16, seed=1), values(1, length, 2, 16, seed=2)
    state = values(1, 4, 8, 16, seed=3)
    before, dt = state.copy(), np.zeros((1, length, 4), np.float32)
    dt[0, :, [0, 2]] = 0.4
    y = numba_ops.ssd_scan(x, dt, -np.ones(4, np.float32), B, C, state)
    np.testing.assert_array_equal(state[:, [1, 3]], before[:, [1, 3]])
    assert (state[:, [0, 2]] != before[:, [0, 2]]).all()
    assert_close(y, numpy_ops.ssd_scan(x, dt, -np.ones(4, np.float32), B, C, before))


def test_ssd_forgets_wholly_without_overflow() -> None:
    """Decays far below the smallest number: their products are 0, and no quotient of them is ever formed."""
    x, B, C = values(1, 9, 2, 4), values(1, 9, 1, 8, seed=1), values(1, 9, 1, 8, seed=2)
    dt, states = np.full((1, 9, 2), 60.0, np.float32), [values(1, 2, 4, 8, seed=3) for _ in range(2)]
    ys = [
        module.ssd_scan(x, dt, np.float32([-3, -1]), B, C, states[i]) for i, module in enumerate((numba_ops, numpy_ops))
    ]
    assert_close(*ys)
    assert_close(*states)


@pytest.mark.parametrize("dt_range", [(0.0, float("inf")), (0.01, 0.5)])
@pytest.mark.parametrize("filtered", [False, True])
def test_filtered_dt(dt_range: tuple[float, float], filtered: bool) -> None:
    raw = np.concatenate([values(5, 12, scale=4), np.float32([EDGES])])[None]
    threshold = np.linspace(-3, 3, 12, dtype=np.float32) if filtered else None
    (found, kept), (expected, counts) = (
        module.filtered_dt(raw, threshold, dt_range) for module in (numba_ops, numpy_ops)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-38)
    np.testing.assert_array_equal(kept, counts)
    assert kept.dtype == counts.dtype == np.int32
    assert (kept == 12).all() == (not filtered)


def test_softplus_against_float64() -> None:
    raw = np.linspace(-87, 87, 200_001, dtype=np.float32).reshape(1, 1, -1)
    found, _ = numba_ops.filtered_dt(raw, None, (0.0, float("inf")))
    exact = np.logaddexp(0.0, raw.astype(np.float64))
    assert np.abs(found / exact - 1).max() < 5e-7
    edges, _ = numba_ops.filtered_dt(np.float32([[[-np.inf, np.inf, np.nan, -104.0]]]), None, (0.0, float("inf")))
    np.testing.assert_array_equal(edges.ravel(), np.float32([0.0, np.inf, np.nan, 0.0]))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("length", [1, 3, 40])
def test_convolution(length: int, bias: bool) -> None:
    x = values(2, length, 20, scale=3)[..., 2:12]  # a view, as parts of a projection are
    x[0, 0, :] = EDGES[:10]
    taps, added, initial = values(4, 10, seed=1), values(10, seed=2) if bias else None, values(2, 3, 10, seed=3)
    for before in (initial, None):
        found, expected = (module.causal_conv1d(x, taps, added, before) for module in (numba_ops, numpy_ops))
        assert_close(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("norm_before_gate", [False, True])
@pytest.mark.parametrize("groups", [1, 3])
def test_gated_norm(groups: int, norm_before_gate: bool) -> None:
    y, z, weight = values(2, 5, 24), values(2, 5, 30, seed=1, scale=5)[..., 3:27], values(24, seed=2)
    before = y.copy()
    given = {"groups": groups, "eps": 1e-5, "norm_before_gate": norm_before_gate}
    assert_close(*(module.gated_rms_norm(y, z, weight, **given) for module in (numba_ops, numpy_ops)))
    np.testing.assert_array_equal(y, before)


@pytest.mark.parametrize("weighted", [False, True])
def test_norm(weighted: bool) -> None:
    x, weight = values(2, 5, 21), values(21, seed=1) if weighted else None
    assert_close(*(module.rms_norm(x, weight, 1e-5) for module in (numba_ops, numpy_ops)))


def test_gate() -> None:
    ys, z = [values(2, 6, 12) for _ in range(2)], values(2, 6, 24, seed=1, scale=4)[..., 12:]
    z[0, 0] = EDGES
    for module, y in zip((numba_ops, numpy_ops), ys, strict=True):
        module.gate(y, z)
    assert_close(*ys)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 18])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_product_with_a_vector(rows: int, threads: int, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "has_one_thread", lambda: threads == 1)
    weight, x, added = values(rows, 37), values(1, 1, 37, seed=1), values(rows, seed=2) if bias else None
    found, expected = (module.linear(x, weight, added) for module in (numba_ops, numpy_ops))
    assert found.shape == expected.shape == (1, 1, rows)
    assert_close(found, expected)
    assert_close(numba_ops.linear(x, values(37, rows).T, added), numpy_ops.linear(x, values(37, rows).T, added))


def test_used_for_wide_layers_and_long_texts_where_numba_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LONGMAMBA_KERNEL", raising=False)
    assert backend.cpu_ops(256) is backend.cpu_ops(256, 65_535) is numpy_ops
    assert backend.cpu_ops(1536) is backend.cpu_ops(256, 65_536) is numba_ops
    monkeypatch.setenv("LONGMAMBA_KERNEL", "numpy")
    assert backend.cpu_ops(1536, 65_536) is numpy_ops
    monkeypatch.setenv("LONGMAMBA_KERNEL", "cpu")
    monkeypatch.setattr(backend, "_numba_ops", lambda: "numba is not installed")
    assert backend.cpu_ops(1536) is numpy_ops


def test_used_for_any_layer_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGMAMBA_KERNEL", "compiled")
    assert backend.cpu_ops(256) is numba_ops
    assert ops.implementation() == "cpu"
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    monkeypatch.setattr(backend, "_numba_ops", backend._numba_ops.__wrapped__)
    with pytest.raises(UsageError, match="numba is not installed"):
        backend.cpu_ops(256)


def test_a_numba_that_does_not_load_is_warned_of_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_numba_ops", backend._numba_ops.__wrapped__)
    monkeypatch.delitem(sys.modules, "longmamba_mlx.ops.cpu.numba_ops")
    monkeypatch.setitem(sys.modules, "longmamba_mlx.ops.cpu.numba_loops", None)
    for module in ("numba_ops", "numba_loops"):
        monkeypatch.delattr(cpu, module)
    with pytest.warns(RuntimeWarning, match="numba does not work here"):
        assert backend.cpu_ops(1536) is numpy_ops
    monkeypatch.setenv("LONGMAMBA_KERNEL", "compiled")
    with pytest.warns(RuntimeWarning), pytest.raises(UsageError, match="numba does not work here"):
        backend.cpu_ops(1536)


def test_is_not_loaded_before_it_is_needed() -> None:
    code = "import sys, longmamba_mlx.models.numpy_layers; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
