"""Every implementation of Mamba-3's scan against a float64 oracle, and what the filter promises."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx import ops
from longmamba_mlx.ops.cpu import mamba3
from longmamba_mlx.ops.mamba3 import chunked, reference, turns
from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs, Mamba3State
from longmamba_mlx.ops.mamba3.oracle import mamba3_scan as oracle
from longmamba_mlx.ops.oracle import softplus
from tests.ops.mamba3_cases import mamba3_case

SCANS = {"reference": reference.mamba3_scan, "blocks": chunked.mamba3_scan, "numpy": mamba3.mamba3_scan}
if find_spec("numba") is not None:
    from longmamba_mlx.ops.cpu import numba_mamba3

    SCANS["loops"] = partial(mamba3.mamba3_scan, loops=numba_mamba3)
every_scan = pytest.mark.parametrize("name", SCANS)
STATE_ERROR = 5e-7
both_kinds = pytest.mark.parametrize("mimo", [False, True], ids=["siso", "mimo"])
PER_TOKEN = ("x", "dt", "A", "B", "C", "trap", "angle", "z")


def error(value: mx.array, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest value."""
    value = np.array(value.astype(mx.float32)).astype(np.float64)
    assert value.shape == expected.shape
    return float(np.abs(value - expected).max() / max(np.abs(expected).max(), 1e-30))


def turned_apart(angle: mx.array, expected: np.ndarray) -> float:
    """Largest distance of angles in 2^-32 turns from those in radians, on the circle."""
    distance = np.array(angle).astype(np.float64) / 2**32 * 2 * math.pi - expected
    return float(np.abs((distance + math.pi) % (2 * math.pi) - math.pi).max())


def check(name: str, inputs: Mamba3Inputs, y_error: float = 1e-6) -> None:
    y, state, kept = SCANS[name](inputs)
    expected = oracle(inputs)
    assert y.dtype == inputs.x.dtype
    assert error(y, expected.y) < y_error
    for part in ("ssm", "k", "v"):
        assert error(getattr(state, part), getattr(expected, part)) < STATE_ERROR
        assert getattr(state, part).dtype == mx.float32
    assert turned_apart(state.angle, expected.angle) < STATE_ERROR and state.angle.dtype == mx.uint32
    np.testing.assert_array_equal(np.array(kept), expected.kept)


def tokens(inputs: Mamba3Inputs, part: slice | np.ndarray, state: Mamba3State | None) -> Mamba3Inputs:
    """Some of the tokens, from a state."""
    index = part if isinstance(part, slice) else mx.array(part)
    return replace(inputs, initial_state=state, **{name: getattr(inputs, name)[:, index] for name in PER_TOKEN})


def same_bits(a: mx.array, b: mx.array) -> bool:
    return np.array_equal(np.array(a).view(np.uint32), np.array(b).view(np.uint32))


@every_scan
@both_kinds
@pytest.mark.parametrize("length", [1, 2, 20, 21, 22, 64, 65, 257])
def test_equals_the_oracle_at_odd_lengths(name: str, mimo: bool, length: int) -> None:
    check(name, mamba3_case(1 + length % 2, length, mimo=mimo, seed=length))


@every_scan
@both_kinds
@pytest.mark.parametrize(("bias", "factor"), [(0.0, 4.0), (5.0, 1.0), (0.0, 30.0)])
def test_large_steps_are_as_exact(name: str, mimo: bool, bias: float, factor: float) -> None:
    """Steps of 5 turn by more than a whole turn: there float32 cannot hold what they add to the angle."""
    inputs = mamba3_case(1, 257, mimo=mimo, bias=bias)
    check(name, replace(inputs, dt=factor * inputs.dt))


def test_the_angle_is_the_same_on_every_path() -> None:
    inputs = mamba3_case(2, 65, mimo=True, bias=0.0)
    inputs = replace(inputs, dt=4 * inputs.dt, angle=3 * inputs.angle)
    first, *others = (scan(inputs)[1].angle for scan in SCANS.values())
    assert all(np.array_equal(np.array(first), np.array(other)) for other in others)


@pytest.mark.parametrize("xp", [np, mx], ids=["numpy", "mlx"])
@pytest.mark.parametrize(("pieces", "function"), [(turns.SOFTPLUS, softplus), (turns.TANH, np.tanh)])
def test_the_factors_of_an_angle_round_to_the_nearest(xp: Any, pieces: turns.Pieces, function: Any) -> None:
    x = np.random.default_rng(0).uniform(-40, 40, 20000).astype(np.float32)
    x = np.concatenate([x, x / 8, np.float32([-np.inf, -33, -32, -12, -0.0, 1e-9, 12, 32, 33, 1000])])
    expected = function(turns.whole(np, x) / 2**32) * 2.0**pieces.bits
    got = np.array(pieces.values(xp, turns.whole(xp, xp.array(x)))).astype(np.float64)
    assert np.abs(got - expected).max() < 0.6


@pytest.mark.parametrize("rank", [1, 2, 3, 4, 5, 8])
@every_scan
def test_ranks(name: str, rank: int) -> None:
    check(name, mamba3_case(1, 21, mimo=True, rank=rank))


@every_scan
@both_kinds
@pytest.mark.parametrize("raised", [0.0, 1.5, 100.0])
def test_few_tokens_kept(name: str, mimo: bool, raised: float) -> None:
    """Whole blocks without a kept token, heads that keep others, and nothing kept at all."""
    inputs = mamba3_case(2, 150, mimo=mimo)
    check(name, replace(inputs, threshold=inputs.threshold + raised * mx.array([1.0, 0.0, 0.5, 1.0])))


@every_scan
@both_kinds
@pytest.mark.parametrize("left_out", ["D", "z", "dt_bias", "threshold", "initial_state", "all"])
def test_optional_arguments(name: str, mimo: bool, left_out: str) -> None:
    names = ("D", "z", "dt_bias", "threshold", "initial_state") if left_out == "all" else (left_out,)
    check(name, replace(mamba3_case(1, 63, mimo=mimo), **dict.fromkeys(names)))


@every_scan
@both_kinds
@pytest.mark.parametrize("floor", [0.0, 0.9])
def test_raw_rates(name: str, mimo: bool, floor: float) -> None:
    inputs = mamba3_case(1, 40, mimo=mimo)
    check(name, replace(inputs, A=3 * inputs.trap, A_floor=floor))


@every_scan
@both_kinds
@pytest.mark.parametrize(("groups", "angles", "size"), [(1, 4, 8), (4, 1, 6), (2, 3, 16)])
def test_groups_and_angles(name: str, mimo: bool, groups: int, angles: int, size: int) -> None:
    check(name, mamba3_case(1, 65, mimo=mimo, groups=groups, angles=angles, size=size, rank=2))


@every_scan
@both_kinds
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_sixteen_bit_inputs_keep_float32_inside(name: str, mimo: bool, dtype: mx.Dtype) -> None:
    inputs = mamba3_case(1, 65, mimo=mimo)
    low = {part: getattr(inputs, part).astype(dtype) for part in PER_TOKEN if part != "A"}
    check(name, replace(inputs, **low), 4.5e-3)


@every_scan
@both_kinds
@pytest.mark.parametrize("chunk", [1, 7, 21, 64])
def test_any_chunks_are_the_whole(name: str, mimo: bool, chunk: int) -> None:
    inputs = mamba3_case(1, 100, mimo=mimo)
    whole, after, _ = SCANS[name](inputs)
    state, parts = inputs.initial_state, []
    for start in range(0, 100, chunk):
        y, state, _ = SCANS[name](tokens(inputs, slice(start, start + chunk), state))
        parts.append(y)
    assert error(mx.concatenate(parts, axis=1), np.array(whole).astype(np.float64)) < 1e-6
    assert error(state.ssm, np.array(after.ssm).astype(np.float64)) < 5e-7
    assert same_bits(state.angle, after.angle), "angles add up exactly, in any order"
    assert error(state.k, np.array(after.k).astype(np.float64)) < 5e-7


@both_kinds
def test_deleting_filtered_tokens_by_hand_gives_the_same_state_to_the_bit(mimo: bool) -> None:
    inputs = mamba3_case(1, 90, mimo=mimo, heads=1, groups=1)
    raw = np.array(inputs.dt + inputs.dt_bias)[0, :, 0]
    kept = np.flatnonzero(raw > np.array(inputs.threshold)[0])
    assert 20 < len(kept) < 70
    _, filtered, _ = reference.mamba3_scan(inputs)
    _, deleted, _ = reference.mamba3_scan(replace(tokens(inputs, kept, inputs.initial_state), threshold=None))
    assert all(same_bits(a, b) for a, b in zip(filtered.arrays(), deleted.arrays(), strict=True))


@every_scan
@both_kinds
def test_deleting_filtered_tokens_by_hand_changes_no_later_output(name: str, mimo: bool) -> None:
    inputs = mamba3_case(1, 90, mimo=mimo, heads=1, groups=1)
    kept = np.flatnonzero(np.array(inputs.dt + inputs.dt_bias)[0, :, 0] > np.array(inputs.threshold)[0])
    y, state, _ = SCANS[name](inputs)
    fewer, after, _ = SCANS[name](replace(tokens(inputs, kept, inputs.initial_state), threshold=None))
    assert error(y[:, mx.array(kept)], np.array(fewer).astype(np.float64)) < 1e-6
    for a, b in zip(state.arrays(), after.arrays(), strict=True):
        assert error(a, np.array(b).astype(np.float64)) < 5e-7


@every_scan
@both_kinds
def test_all_filtered_leaves_the_state_as_it_was(name: str, mimo: bool) -> None:
    inputs = mamba3_case(2, 130, mimo=mimo)
    _, state, kept = SCANS[name](replace(inputs, threshold=mx.full((4,), 1e6)))
    assert all(same_bits(a, b) for a, b in zip(state.arrays(), inputs.start.arrays(), strict=True))
    assert not np.array(kept).any()


@every_scan
@both_kinds
def test_minus_infinity_is_no_filter(name: str, mimo: bool) -> None:
    inputs = mamba3_case(1, 65, mimo=mimo)
    free = SCANS[name](replace(inputs, threshold=None))
    open_ = SCANS[name](replace(inputs, threshold=mx.full((4,), -math.inf)))
    assert error(open_[0], np.array(free[0]).astype(np.float64)) < 1e-6
    assert error(open_[1].ssm, np.array(free[1].ssm).astype(np.float64)) < 5e-7
    assert np.array_equal(np.array(open_[2]), np.array(free[2])) and (np.array(free[2]) == 4).all()


@every_scan
def test_small_turns_add_up(name: str) -> None:
    """Sums in float32 drift with every token; here only what a token adds is rounded."""
    length, step, turn = 2000, 1e-3, 0.3
    inputs = replace(
        mamba3_case(1, length, heads=1, groups=1),
        dt=mx.full((1, length, 1), math.log(math.expm1(step))),
        angle=mx.full((1, length, 2), turn),
        dt_bias=None,
        threshold=None,
        initial_state=None,
    )
    _, state, _ = SCANS[name](inputs)
    expected = np.full((1, 1, 2), length * math.pi * math.tanh(turn) * step)
    assert turned_apart(state.angle, expected) < 1e-6


def test_the_public_name_agrees_with_the_specification() -> None:
    inputs = mamba3_case(1, 65, mimo=True)
    named = {name: getattr(inputs, name) for name in Mamba3Inputs.__dataclass_fields__}
    positional = [named.pop(name) for name in ("x", "dt", "A", "B", "C", "trap", "angle")]
    y, state, kept = ops.mamba3_scan(*positional, **named)
    expected = reference.mamba3_scan(inputs)
    assert error(y, np.array(expected[0]).astype(np.float64)) < 1e-6
    assert error(state.ssm, np.array(expected[1].ssm).astype(np.float64)) < 5e-7
    assert np.array_equal(np.array(kept), np.array(expected[2]))
    assert len(ops.mamba3_scan(*positional, **named | {"return_kept": False})) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dt": mx.zeros((1, 5, 3))}, "dt has shape"),
        ({"angle": mx.zeros((1, 5, 5))}, "angle turns 5 pairs"),
        ({"B": mx.zeros((1, 5, 1, 3, 8)), "C": mx.zeros((1, 5, 1, 3, 8))}, "B has 3 groups"),
        ({"B": mx.zeros((1, 5, 2, 2, 8))}, "B has rank 2, but there is no mimo"),
        ({"B": mx.zeros((1, 5, 1, 2, 7))}, "odd state size 7"),
        ({"threshold": mx.array([0.0, 1.0, math.nan, 0.0])}, "threshold holds NaN"),
        ({"initial_state": Mamba3State.zeros(1, 4, 6, 8, 1, 3)}, "initial_state.angle is"),
        ({"z": mx.zeros((1, 5, 4, 6), dtype=mx.int32)}, "z has dtype"),
        ({"A_floor": -1.0}, "A_floor is -1.0"),
    ],
)
def test_wrong_arguments_are_named(changes: dict, message: str) -> None:
    inputs = replace(mamba3_case(1, 5), **changes)
    named = {name: getattr(inputs, name) for name in Mamba3Inputs.__dataclass_fields__}
    positional = [named.pop(name) for name in ("x", "dt", "A", "B", "C", "trap", "angle")]
    with pytest.raises(ValueError, match=message):
        ops.mamba3_scan(*positional, **named)
