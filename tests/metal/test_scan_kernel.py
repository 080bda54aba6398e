"""The scan kernel, run thread by thread, against the float64 oracles; and the filter's promises to the bit."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.metal_kernels import scan as scan_launches
from longmamba_mlx.metal_kernels import sequential_scan as scan_kernel
from longmamba_mlx.metal_kernels import source
from longmamba_mlx.ops import metal, metal_check, reference
from longmamba_mlx.ops import oracle as oracles
from longmamba_mlx.ops.inputs import ScanInputs, takes
from tests.emulator.emulator import Options, metal_kernel
from tests.ops.cases import DTYPES, selective_case, ssd_case

pytestmark = pytest.mark.usefixtures("emulated")

Case = dict[str, Any]
# An NVIDIA GPU's exp is right to two units in the last place, the emulator's to half of one.
FLOAT32 = 1e-6 if os.environ.get("LONGMAMBA_EMULATOR") == "nvidia" else 5e-7
# Half a unit in the last place of y's dtype, relative to the largest value, and what float32 adds.
Y_TOLERANCE = {"float32": FLOAT32, "float16": 5e-4, "bfloat16": 3.95e-3}
SCANS = {
    "mamba1": (takes(ScanInputs)(metal.selective_scan), oracles.selective_scan, selective_case),
    "mamba2": (takes(ScanInputs)(metal.ssd_scan), oracles.ssd_scan, ssd_case),
}
both = pytest.mark.parametrize("name", SCANS)


def error(value: mx.array, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest value."""
    got = oracles.as64(value)
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-30))


def bits(array: mx.array) -> bytes:
    view = array.view(mx.uint16) if array.dtype != mx.float32 else array
    return np.ascontiguousarray(np.asarray(view)).tobytes()


def small(name: str, length: int = 37, **changes: Any) -> Case:
    """Batch 2, no size a multiple of anything, every optional argument given."""
    sizes: Case = {"channels": 9, "states": 16} if name == "mamba1" else {"heads": 4, "width": 6, "states": 16}
    return SCANS[name][2](2, length, **sizes | changes)


def check(name: str, case: Case, tolerance: float = FLOAT32, y_tolerance: float | None = None) -> None:
    run, oracle, _ = SCANS[name]
    y, state, kept = run(**case, return_kept=True)
    expected_y, expected_state, expected_kept = oracle(**case)
    assert y.dtype == case["x"].dtype and state.dtype == mx.float32
    assert error(y, expected_y) <= (tolerance if y_tolerance is None else y_tolerance)
    assert error(state, expected_state) <= tolerance
    np.testing.assert_array_equal(np.array(kept), expected_kept)


def with_lanes(monkeypatch: pytest.MonkeyPatch, lanes: int) -> None:
    choose: Callable[..., scan_kernel.Layout] = scan_kernel.layout
    monkeypatch.setattr(scan_kernel, "layout", lambda *sizes: choose(*sizes[:4], lanes))


@both
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 65])
def test_lengths_and_dtypes(name: str, dtype: str, length: int) -> None:
    check(name, small(name, length, dtype=dtype, seed=length), y_tolerance=Y_TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("channels", "states"), [(1, 8), (70, 8), (130, 16), (7, 32), (40, 64), (3, 128), (5, 3), (2, 1)]
)
def test_mamba1_sizes(channels: int, states: int) -> None:
    check("mamba1", selective_case(1, 21, channels, states))


@pytest.mark.parametrize("states", [64, 128, 256])
@pytest.mark.parametrize(("heads", "width", "groups"), [(1, 1, 1), (2, 32, 1), (2, 64, 2), (1, 128, 1)])
def test_mamba2_sizes(heads: int, width: int, groups: int, states: int) -> None:
    check("mamba2", ssd_case(1, 6, heads, width, groups, states))


def test_a_threadgroup_that_stages_three_tokens_at_once() -> None:
    check("mamba2", ssd_case(1, 37, 1, 12, 1, 64))


@pytest.mark.parametrize(("heads", "groups"), [(1, 1), (6, 1), (6, 3), (6, 6)])
def test_mamba2_groups(heads: int, groups: int) -> None:
    check("mamba2", ssd_case(2, 9, heads, 5, groups, 8))


@both
@pytest.mark.parametrize("left_out", ["D", "z", "dt_bias", "threshold", "initial_state", "all"])
def test_optional_arguments(name: str, left_out: str) -> None:
    names = ("D", "z", "dt_bias", "threshold", "initial_state") if left_out == "all" else (left_out,)
    check(name, small(name) | dict.fromkeys(names))


@both
@pytest.mark.parametrize("gate", [True, False])
def test_reverse(name: str, gate: bool) -> None:
    case = small(name) | {"reverse": True}
    check(name, case if gate else case | {"z": None})


@both
def test_kept_counts_can_be_left_out(name: str) -> None:
    case = small(name)
    with_counts = SCANS[name][0](**case, return_kept=True)
    without = SCANS[name][0](**case)
    assert [bits(a) for a in without] == [bits(a) for a in with_counts[:2]]


@both
def test_step_limits_do_not_bring_filtered_tokens_back(name: str) -> None:
    case = small(name) | {"time_step_limit": (0.1, 0.5)}
    check(name, case)
    check(name, case | {"threshold": None})
    all_filtered = case | {"threshold": mx.full(case["threshold"].shape, math.inf)}
    assert bits(SCANS[name][0](**all_filtered)[1]) == bits(case["initial_state"])


@both
def test_all_filtered_leaves_the_state_as_it_was(name: str) -> None:
    case = small(name)
    case["threshold"] = mx.full(case["threshold"].shape, 1e6)
    y, state, kept = SCANS[name][0](**case, return_kept=True)
    assert bits(state) == bits(case["initial_state"])
    assert not np.array(kept).any()
    assert error(y, SCANS[name][1](**case)[0]) <= FLOAT32


@both
def test_none_filtered_is_no_threshold(name: str) -> None:
    case = small(name)
    run = SCANS[name][0]
    open_ = run(**case | {"threshold": mx.full(case["threshold"].shape, -math.inf)}, return_kept=True)
    none = run(**case | {"threshold": None}, return_kept=True)
    assert [bits(a) for a in open_[:2]] == [bits(a) for a in none[:2]]
    assert (np.array(open_[2]) == case["threshold"].size).all() and np.array_equal(open_[2], none[2])


@both
def test_ties_are_filtered(name: str) -> None:
    case = small(name, 40)
    raw = np.array(case["dt"]) + np.array(case["dt_bias"])
    case["threshold"] = mx.array(raw[0, 10])
    kept = np.array(SCANS[name][0](**case, return_kept=True)[2])
    np.testing.assert_array_equal(kept, (raw > raw[0, 10]).sum(-1))
    assert kept[0, 10] == 0


@both
def test_neighbouring_floats_are_told_apart(name: str) -> None:
    """One unit in the last place above the threshold is kept, though most such steps are equal after the softplus."""
    case = small(name, 60)
    cut = np.linspace(0.01, 0.02, case["threshold"].size, dtype=np.float32)
    case["threshold"] = mx.array(cut)
    dt = np.broadcast_to(cut, case["dt"].shape).copy()
    dt[:, ::3] = np.nextafter(cut, np.float32(np.inf))
    dt[:, 1::3] = np.nextafter(cut, np.float32(-np.inf))
    kept = SCANS[name][0](**case | {"dt": mx.array(dt), "dt_bias": None}, return_kept=True)[2]
    np.testing.assert_array_equal(np.array(kept), np.where(np.arange(60) % 3 == 0, cut.size, 0) + np.zeros((2, 1)))


@both
@pytest.mark.parametrize("reverse", [False, True])
def test_any_split_in_time_is_bitwise_the_whole(name: str, reverse: bool) -> None:
    case = small(name, 41) | {"reverse": reverse}
    run = SCANS[name][0]
    y, state, kept = run(**case, return_kept=True)
    for split in (1, 4, 7, 32, 33, 40):
        parts = [
            {key: case[key][:, part] for key in ("x", "dt", "B", "C", "z")}
            for part in (slice(split), slice(split, None))
        ]
        order = parts[::-1] if reverse else parts
        first = run(**case | order[0], return_kept=True)
        second = run(**case | order[1] | {"initial_state": first[1]}, return_kept=True)
        results = (second, first) if reverse else (first, second)
        assert bits(second[1]) == bits(state)
        assert bits(mx.concatenate([part[0] for part in results], axis=1)) == bits(y)
        assert np.array_equal(mx.concatenate([part[2] for part in results], axis=1), kept)


@both
@pytest.mark.parametrize("reverse", [False, True])
def test_long_inputs_go_in_pieces(name: str, reverse: bool, monkeypatch: pytest.MonkeyPatch, emulated: Options) -> None:
    case = small(name, 41) | {"reverse": reverse}
    whole = SCANS[name][0](**case, return_kept=True)
    before = emulated.launches
    monkeypatch.setattr(scan_launches, "MAX_TOKENS", 9)
    pieces = SCANS[name][0](**case, return_kept=True)
    assert emulated.launches - before == 5
    assert [bits(a) for a in pieces[:2]] == [bits(a) for a in whole[:2]]
    assert np.array_equal(pieces[2], whole[2])


@both
def test_lanes_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = small(name) | {"z": None}
    results = []
    for lanes in (1, 2, 4, 8, 16):
        with monkeypatch.context() as patched:
            with_lanes(patched, lanes)
            results.append(SCANS[name][0](**case, return_kept=True))
    for y, state, kept in results[1:]:
        assert bits(state) == bits(results[0][1])
        assert error(y, oracles.as64(results[0][0])) <= FLOAT32
        assert np.array_equal(kept, results[0][2])


@both
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bit_coefficients_are_read_as_they_are(name: str, dtype: str) -> None:
    case = small(name, 7, dtype="float16")
    low = {key: case[key].astype(DTYPES[dtype]) for key in ("A", "D", "dt_bias")}
    wide = {key: array.astype(mx.float32) for key, array in low.items()}
    run = SCANS[name][0]
    assert [bits(a) for a in run(**case | low)] == [bits(a) for a in run(**case | wide)]


def test_inputs_are_read_in_place() -> None:
    """Slices of wider arrays, transposed and broadcast ones: what lies between is poison, and is not read."""
    case = selective_case(2, 19, 6, 8)
    wide = mx.random.normal((2, 19, 3, 40))
    z, b_in, c_out = wide[:, :, 1, 5:11], wide[:, :, 2, 3:19:2], wide[:, :, 0, 16:40:3]
    views = {
        "x": mx.random.normal((6, 19, 2)).transpose(2, 1, 0),
        "z": z,
        "B": b_in,
        "C": c_out,
        "A": -mx.exp(mx.random.normal((8, 6))).T,
        "D": mx.broadcast_to(mx.array(0.5), (6,)),
        "initial_state": mx.random.normal((2, 8, 6)).swapaxes(1, 2),
    }
    check("mamba1", case | views)
    check("mamba1", case | {key: array[:, ::-1] for key, array in views.items() if key in ("x", "z")})


def test_mamba2_reads_one_projection_in_place() -> None:
    wide = mx.random.normal((2, 11, 2 * 24 + 2 * 16 + 4))
    u, z, b_in, c_out, dt = mx.split(wide, [24, 48, 64, 80], axis=-1)
    case = ssd_case(2, 11, 4, 6, 2, 8)
    views = {"x": u.reshape(2, 11, 4, 6), "z": z.reshape(2, 11, 4, 6), "dt": dt}
    check("mamba2", case | views | {"B": b_in.reshape(2, 11, 2, 8), "C": c_out.reshape(2, 11, 2, 8)})


@both
def test_steps_of_every_size(name: str) -> None:
    """Tiny steps keep their relative accuracy; huge ones do not overflow."""
    case = small(name, 24) | dict.fromkeys(("z", "D", "dt_bias", "threshold", "initial_state"))
    for low, high in ((-40.0, -30.0), (-10.0, 0.0), (0.0, 30.0), (80.0, 100.0)):
        raw = mx.linspace(low, high, 24).reshape(1, 24, 1)
        check(name, case | {"dt": mx.broadcast_to(raw, case["dt"].shape)})


@both
def test_what_is_no_number_stays_none(name: str) -> None:
    """A NaN in an input shows in the same places of y and of the state as in the specification.

    Where a token is filtered the kernel skips the write altogether; the specification adds 0 times it.
    """
    run = takes(ScanInputs)({"mamba1": reference.selective_scan, "mamba2": reference.ssd_scan}[name])
    case = small(name, 12) | {"time_step_limit": (0.001, 10.0)}
    for threshold, keys in ((case["threshold"], ("dt", "z")), (None, ("x", "dt", "B", "z"))):
        for key in keys:
            values = np.array(case[key])
            values[0, 3].flat[1] = np.nan
            broken = case | {key: mx.array(values), "threshold": threshold}
            for got, expected in zip(SCANS[name][0](**broken), run(**broken), strict=True):
                np.testing.assert_array_equal(np.isnan(np.array(got)), np.isnan(np.array(expected)))


def test_softplus_alone() -> None:
    """Relative error over everything that float32 can show; exactly 0 at minus infinity, x where x is large."""
    body = "const uint i = thread_position_in_grid.x; o[i] = longmamba_softplus(a[i]);"
    x = np.concatenate([np.linspace(-86, 30, 9999, dtype=np.float32), np.linspace(-1, 1, 2001, dtype=np.float32)])
    kernel = metal_kernel("softplus", ["a"], ["o"], body, header=source("softplus"))
    shape = (len(x) + 3,)
    given = mx.array(np.append(x, np.array([-np.inf, 90.0, np.inf], np.float32)))
    got = kernel(
        inputs=[given], output_shapes=[shape], output_dtypes=[mx.float32], grid=(*shape, 1, 1), threadgroup=(64, 1, 1)
    )[0]
    expected = oracles.softplus(x.astype(np.float64))
    relative = oracles.as64(got)[:-3] / expected - 1
    assert np.abs(relative).max() <= 2.5e-7
    # Rounding has no preference: a mean shows what the series leaves out where it converges slowest.
    assert abs(relative[np.abs(x) < 0.3].mean()) <= 2e-8
    assert got[-3:].tolist() == [0.0, 90.0, math.inf]


def test_the_self_check_passes_and_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert metal_check._difference_from_reference() < 1e-5
    assert metal_check.usable(required=True)
    real = scan_kernel.source
    monkeypatch.setattr(scan_kernel, "source", lambda name: real(name).replace("written *", "0.5f * written *"))
    scan_kernel._kernel.cache_clear()
    assert metal_check._difference_from_reference() > 1e-2
