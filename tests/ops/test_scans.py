"""Every implementation of both scans against the float64 oracles, and the filter's promises to the bit."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx import ops
from longmamba_mlx.ops import chunked_ssd, reference
from longmamba_mlx.ops import oracle as oracles
from longmamba_mlx.ops.cpu import bridge, numpy_ops
from longmamba_mlx.ops.inputs import ScanInputs, takes
from tests.ops.cases import LENGTHS, selective_case, ssd_case

by_name = takes(ScanInputs)
NUMPY = bridge.CPU(lambda channels: numpy_ops)
SCANS = {
    "selective-reference": (by_name(reference.selective_scan), oracles.selective_scan, selective_case),
    "selective-numpy": (by_name(NUMPY.selective_scan), oracles.selective_scan, selective_case),
    "ssd-reference": (by_name(reference.ssd_scan), oracles.ssd_scan, ssd_case),
    "ssd-blocks": (by_name(chunked_ssd.ssd_scan), oracles.ssd_scan, ssd_case),
    "ssd-numpy": (by_name(NUMPY.ssd_scan), oracles.ssd_scan, ssd_case),
}
# Half a unit in the last place of y's dtype, and a little float32 noise.
TOLERANCE = {"float32": 2e-6, "float16": 6e-4, "bfloat16": 4.5e-3}
every_scan = pytest.mark.parametrize("name", SCANS)


def relative_error(value: mx.array, expected: np.ndarray) -> float:
    value = np.array(value.astype(mx.float32)).astype(np.float64)
    assert value.shape == expected.shape
    return float(np.abs(value - expected).max() / max(np.abs(expected).max(), 1e-30))


def check(name: str, case: dict, y_tolerance: float = TOLERANCE["float32"]) -> None:
    scan, oracle, _ = SCANS[name]
    y, state, kept = scan(**case, return_kept=True)
    expected_y, expected_state, expected_kept = oracle(**case)
    assert y.dtype == case["x"].dtype
    assert state.dtype == mx.float32
    assert relative_error(y, expected_y) < y_tolerance
    assert relative_error(state, expected_state) < TOLERANCE["float32"]
    np.testing.assert_array_equal(np.array(kept), expected_kept)


def same_bits(a: mx.array, b: mx.array) -> bool:
    return np.array_equal(np.array(a).view(np.uint32), np.array(b).view(np.uint32))


@every_scan
@pytest.mark.parametrize("length", LENGTHS)
def test_equals_the_oracle_at_odd_lengths(name: str, length: int) -> None:
    check(name, SCANS[name][2](batch=1 + length % 2, length=length, seed=length))


@every_scan
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bit_inputs_keep_float32_inside(name: str, dtype: str) -> None:
    check(name, SCANS[name][2](2, 65, dtype=dtype), TOLERANCE[dtype])


@every_scan
def test_reverse_reads_from_the_last_token(name: str) -> None:
    check(name, SCANS[name][2](2, 65) | {"reverse": True})


@every_scan
@pytest.mark.parametrize("left_out", [("D",), ("z",), ("dt_bias",), ("threshold",), ("initial_state",), "all"])
def test_optional_arguments(name: str, left_out: tuple[str, ...] | str) -> None:
    names = ("D", "z", "dt_bias", "threshold", "initial_state") if left_out == "all" else left_out
    check(name, SCANS[name][2](1, 63) | dict.fromkeys(names))


@pytest.mark.parametrize("name", ["ssd-reference", "ssd-blocks", "ssd-numpy"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups(name: str, groups: int) -> None:
    check(name, ssd_case(1, 65, heads=4, groups=groups))


@every_scan
def test_lower_step_limit_does_not_bring_filtered_tokens_back(name: str) -> None:
    case = SCANS[name][2](1, 65) | {"time_step_limit": (0.01, 0.5)}
    check(name, case)
    everything = case | {"threshold": mx.full(case["threshold"].shape, math.inf)}
    state = SCANS[name][0](**everything)[1]
    assert same_bits(state, case["initial_state"])


@every_scan
def test_all_filtered_leaves_the_state_as_it_was(name: str) -> None:
    case = SCANS[name][2](2, 257)
    case["threshold"] = mx.full(case["threshold"].shape, 1e6)
    y, state, kept = SCANS[name][0](**case, return_kept=True)
    assert same_bits(state, case["initial_state"])
    assert not np.array(kept).any()
    assert relative_error(y, SCANS[name][1](**case)[0]) < TOLERANCE["float32"]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("moving", [0, 1, 3, 7, 8, 9, 16])
def test_channels_that_stand_still_keep_their_states(moving: int, reverse: bool) -> None:
    case = selective_case(2, 150, channels=16) | {"reverse": reverse}
    threshold = np.full(16, 1e6, np.float32)
    threshold[3 : 3 + moving] = -math.inf
    threshold[: max(0, moving - 13)] = -math.inf
    case["threshold"] = mx.array(threshold)
    check("selective-numpy", case)
    state, before = (np.array(a) for a in (NUMPY.selective_scan(ScanInputs(**case))[1], case["initial_state"]))
    still = np.isfinite(threshold)
    assert still.sum() == 16 - moving
    np.testing.assert_array_equal(state[:, still], before[:, still])
    assert (state[:, ~still] != before[:, ~still]).any(axis=(1, 2)).all() or moving == 0


@every_scan
def test_minus_infinity_is_no_filter(name: str) -> None:
    case = SCANS[name][2](1, 65)
    scan = SCANS[name][0]
    y, state, kept = scan(**case | {"threshold": mx.full(case["threshold"].shape, -math.inf)}, return_kept=True)
    y_free, state_free, kept_free = scan(**case | {"threshold": None}, return_kept=True)
    assert same_bits(y, y_free) and same_bits(state, state_free)
    assert np.array_equal(np.array(kept), np.array(kept_free)) and (np.array(kept) == case["D"].size).all()


@every_scan
def test_ties_are_filtered(name: str) -> None:
    """Strictly greater keeps: a token whose raw step is the threshold itself is filtered."""
    case = SCANS[name][2](1, 64)
    case["dt_bias"] = mx.zeros_like(case["dt_bias"])
    raw = np.array(case["dt"])
    case["threshold"] = mx.array(raw[0, 10])
    kept = SCANS[name][0](**case, return_kept=True)[2]
    np.testing.assert_array_equal(np.array(kept), (raw > raw[0, 10]).sum(-1))
    assert np.array(kept)[0, 10] == 0


@every_scan
@pytest.mark.parametrize("split", [1, 31, 64, 127])
def test_split_anywhere_is_the_whole(name: str, split: int) -> None:
    case = SCANS[name][2](2, 128)
    scan = SCANS[name][0]
    y, state = scan(**case)
    per_token = ("x", "dt", "B", "C", "z")
    first = scan(**case | {key: case[key][:, :split] for key in per_token})
    rest = {key: case[key][:, split:] for key in per_token} | {"initial_state": first[1]}
    second = scan(**case | rest)
    joined = mx.concatenate([first[0], second[0]], axis=1)
    assert relative_error(joined, oracles.as64(y)) < TOLERANCE["float32"]
    assert relative_error(second[1], oracles.as64(state)) < TOLERANCE["float32"]


@every_scan
def test_slow_decay_survives_a_long_text(name: str) -> None:
    """exp(-1e-4) for 2,000 tokens: what a 16-bit decay, or differences of large sums, would lose."""
    case = SCANS[name][2](1, 2000) | dict.fromkeys(("z", "D", "threshold"))
    case["A"] = mx.full(case["A"].shape, -1.0)
    case["dt_bias"] = mx.full(case["dt_bias"].shape, math.log(math.expm1(1e-4)))
    # Every hundredth token takes a step of about 8, next to steps of 0.0001.
    big = (np.arange(2000) % 100 == 99).astype(np.float32) * 17
    case["dt"] = mx.broadcast_to(mx.array(big).reshape(1, 2000, 1), case["dt"].shape)
    check(name, case, 1e-5)


@every_scan
def test_steps_of_every_size(name: str) -> None:
    """Raw steps from -40 to 30: tiny steps must keep their relative accuracy, huge ones must not overflow."""
    case = SCANS[name][2](1, 64) | dict.fromkeys(("z", "D", "dt_bias", "threshold"))
    case["initial_state"] = None
    for low, high in ((-40.0, -30.0), (-10.0, 0.0), (0.0, 30.0)):
        raw = mx.linspace(low, high, 64).reshape(1, 64, 1)
        check(name, case | {"dt": mx.broadcast_to(raw, case["dt"].shape)}, 1e-5)


def test_public_names_are_the_fast_ones_and_agree() -> None:
    for public, case in ((ops.selective_scan, selective_case(1, 65)), (ops.ssd_scan, ssd_case(1, 65))):
        y, state, kept = public(**case, return_kept=True)
        oracle = oracles.selective_scan if public is ops.selective_scan else oracles.ssd_scan
        expected = oracle(**case)
        assert relative_error(y, expected[0]) < TOLERANCE["float32"]
        assert relative_error(state, expected[1]) < TOLERANCE["float32"]
        np.testing.assert_array_equal(np.array(kept), expected[2])
