"""Mamba-3's kernels, run thread by thread, against the float64 oracle; and the filter's promises to the bit."""

from __future__ import annotations

import math
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.metal_kernels import mamba3 as kernel
from longmamba_mlx.metal_kernels import source
from longmamba_mlx.ops import metal
from longmamba_mlx.ops.mamba3 import chunked, reference, turns
from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs
from longmamba_mlx.ops.mamba3.oracle import mamba3_scan as oracle
from tests.emulator.emulator import Options, metal_kernel
from tests.metal.test_scan_kernel import FLOAT32, Y_TOLERANCE, bits, error
from tests.ops.cases import DTYPES
from tests.ops.mamba3_cases import mamba3_case
from tests.ops.test_mamba3 import PER_TOKEN, both_kinds, same_bits, tokens, turned_apart

pytestmark = pytest.mark.usefixtures("emulated")


def check(inputs: Mamba3Inputs, y_tolerance: float = FLOAT32) -> None:
    y, state, kept = metal.mamba3_scan(inputs)
    expected = oracle(inputs)
    assert y.dtype == inputs.x.dtype
    assert error(y, expected.y) <= y_tolerance
    for part in ("ssm", "k", "v"):
        assert error(getattr(state, part), getattr(expected, part)) <= FLOAT32, part
        assert getattr(state, part).dtype == mx.float32
    assert turned_apart(state.angle, expected.angle) <= FLOAT32 and state.angle.dtype == mx.uint32
    np.testing.assert_array_equal(np.array(kept), expected.kept)


def same(a: tuple, b: tuple) -> bool:
    """y, the four parts of the state and the counts, to the bit."""
    return (
        bits(a[0]) == bits(b[0])
        and all(same_bits(one, other) for one, other in zip(a[1].arrays(), b[1].arrays(), strict=True))
        and all(np.array_equal(np.array(one), np.array(other)) for one, other in zip(a[2:], b[2:], strict=True))
    )


@both_kinds
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 2, 8, 9, 70])
def test_lengths_and_dtypes(mimo: bool, dtype: str, length: int) -> None:
    inputs = mamba3_case(2, length, mimo=mimo, seed=length)
    low = {name: getattr(inputs, name).astype(DTYPES[dtype]) for name in PER_TOKEN if name != "A"}
    check(replace(inputs, **low), Y_TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("heads", "width", "size", "rank", "groups"),
    [
        (2, 64, 128, 4, 1),  # the published model's heads
        (2, 64, 64, 4, 2),
        (1, 64, 128, 1, 1),
        (2, 32, 64, 1, 2),
        (1, 128, 256, 1, 1),
        (3, 5, 96, 2, 3),
        (1, 1, 2, 1, 1),
        (2, 7, 50, 5, 1),
        (1, 3, 128, 16, 1),
    ],
)
def test_sizes(heads: int, width: int, size: int, rank: int, groups: int) -> None:
    """Powers of two and odd ones, one threadgroup a head and several, one key a token and many."""
    sizes = {"heads": heads, "width": width, "size": size, "rank": rank, "groups": groups}
    check(mamba3_case(1, 12, mimo=rank > 1, angles=max(1, size // 4), **sizes))


@both_kinds
def test_all_pairs_turn(mimo: bool) -> None:
    check(mamba3_case(1, 20, mimo=mimo, size=16, angles=8, groups=4))


def test_more_angles_than_a_threadgroup_has_threads() -> None:
    check(mamba3_case(1, 70, size=260, angles=70, heads=2, groups=1, width=2))


@both_kinds
@pytest.mark.parametrize("left_out", ["D", "z", "dt_bias", "threshold", "initial_state", "all"])
def test_optional_arguments(mimo: bool, left_out: str) -> None:
    names = ("D", "z", "dt_bias", "threshold", "initial_state") if left_out == "all" else (left_out,)
    check(replace(mamba3_case(1, 20, mimo=mimo), **dict.fromkeys(names)))


@pytest.mark.parametrize("floor", [0.0, 0.9])
def test_raw_rates(floor: float) -> None:
    inputs = mamba3_case(1, 40)
    check(replace(inputs, A=3 * inputs.trap, A_floor=floor))


@both_kinds
@pytest.mark.parametrize(("bias", "factor"), [(0.0, 4.0), (5.0, 1.0), (0.0, 30.0), (-40.0, 1.0)])
def test_steps_of_every_size(mimo: bool, bias: float, factor: float) -> None:
    inputs = mamba3_case(1, 100, mimo=mimo, bias=bias)
    check(replace(inputs, dt=factor * inputs.dt, angle=factor * inputs.angle))


@both_kinds
def test_the_angle_has_the_bits_of_the_specification(mimo: bool) -> None:
    inputs = mamba3_case(2, 70, mimo=mimo, bias=0.0)
    inputs = replace(inputs, dt=4 * inputs.dt, angle=5 * inputs.angle)
    assert same_bits(metal.mamba3_scan(inputs)[1].angle, reference.mamba3_scan(inputs)[1].angle)


@both_kinds
def test_any_split_in_time_is_bitwise_the_whole(mimo: bool) -> None:
    inputs = mamba3_case(2, 41, mimo=mimo)
    whole = metal.mamba3_scan(inputs)
    for split in (1, 4, 8, 9, 33, 40):
        first = metal.mamba3_scan(tokens(inputs, slice(split), inputs.initial_state))
        second = metal.mamba3_scan(tokens(inputs, slice(split, None), first[1]))
        joined = tuple(mx.concatenate([first[i], second[i]], axis=1) for i in (0, 2))
        assert same((joined[0], second[1], joined[1]), whole)


@both_kinds
def test_long_inputs_go_in_pieces(mimo: bool, monkeypatch: pytest.MonkeyPatch, emulated: Options) -> None:
    inputs = mamba3_case(1, 41, mimo=mimo)
    whole, before = metal.mamba3_scan(inputs), emulated.launches
    monkeypatch.setattr(kernel, "MAX_TOKENS", 9)
    assert same(metal.mamba3_scan(inputs), whole) and emulated.launches - before == 10
    uncounted = replace(inputs, return_kept=False, z=None)
    assert len(metal.mamba3_scan(uncounted)) == 2


@both_kinds
def test_deleting_filtered_tokens_by_hand_gives_the_same_bits(mimo: bool) -> None:
    inputs = mamba3_case(1, 60, mimo=mimo, heads=1, groups=1)
    kept = np.flatnonzero(np.array(inputs.dt + inputs.dt_bias)[0, :, 0] > np.array(inputs.threshold)[0])
    y, *filtered = metal.mamba3_scan(inputs)
    fewer, *deleted = metal.mamba3_scan(replace(tokens(inputs, kept, inputs.initial_state), threshold=None))
    assert bits(y[:, mx.array(kept)]) == bits(fewer)
    assert all(same_bits(a, b) for a, b in zip(filtered[0].arrays(), deleted[0].arrays(), strict=True))


@both_kinds
def test_all_filtered_and_none(mimo: bool) -> None:
    inputs = mamba3_case(2, 37, mimo=mimo)
    _, state, kept = metal.mamba3_scan(replace(inputs, threshold=mx.full((4,), 1e6)))
    assert all(same_bits(a, b) for a, b in zip(state.arrays(), inputs.start.arrays(), strict=True))
    assert not np.array(kept).any()
    free, open_ = (metal.mamba3_scan(replace(inputs, threshold=t)) for t in (None, mx.full((4,), -math.inf)))
    assert same(free, open_) and (np.array(free[2]) == 4).all()


def test_ties_are_filtered_and_neighbouring_floats_told_apart() -> None:
    inputs = mamba3_case(1, 60)
    cut = np.linspace(0.01, 0.02, 4, dtype=np.float32)
    dt = np.broadcast_to(cut, (1, 60, 4)).copy()
    dt[:, ::3] = np.nextafter(cut, np.float32(np.inf))
    dt[:, 1::3] = np.nextafter(cut, np.float32(-np.inf))
    kept = metal.mamba3_scan(replace(inputs, dt=mx.array(dt), dt_bias=None, threshold=mx.array(cut)))[2]
    np.testing.assert_array_equal(np.array(kept)[0], np.where(np.arange(60) % 3 == 0, 4, 0))


@both_kinds
def test_kept_counts_can_be_left_out(mimo: bool) -> None:
    inputs = mamba3_case(1, 21, mimo=mimo)
    assert same(metal.mamba3_scan(inputs)[:2], metal.mamba3_scan(replace(inputs, return_kept=False)))


@both_kinds
def test_inputs_are_read_in_place(mimo: bool) -> None:
    """Slices of wider arrays, transposed and broadcast ones: what lies between is poison, and is not read."""
    inputs = mamba3_case(2, 19, mimo=mimo)
    generator = iter(mx.random.split(mx.random.key(3), 32))

    def strided(array: mx.array) -> mx.array:
        """The same values, every other element of each dimension of an array with its axes reversed."""
        wide = mx.random.normal([2 * size + 1 for size in array.shape[::-1]], key=next(generator)).astype(array.dtype)
        spaced = tuple(slice(1, None, 2) for _ in array.shape)
        wide[spaced] = array.transpose()
        return wide[spaced].transpose()

    names = [*PER_TOKEN, "B_bias", "C_bias", "D", "dt_bias", "threshold"]
    moved = {name: strided(getattr(inputs, name)) for name in names}
    state = replace(inputs.start, **{name: strided(getattr(inputs.start, name)) for name in inputs.start.names})
    mimo_parts = inputs.mimo and replace(
        inputs.mimo, **{name: strided(getattr(inputs.mimo, name)) for name in ("x", "z", "out")}
    )
    moved_inputs = replace(inputs, **moved, initial_state=state, mimo=mimo_parts)
    assert same(metal.mamba3_scan(moved_inputs), metal.mamba3_scan(inputs))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bit_coefficients_are_read_as_they_are(dtype: str) -> None:
    inputs = mamba3_case(1, 7, mimo=True)
    low = {name: getattr(inputs, name).astype(DTYPES[dtype]) for name in ("B_bias", "C_bias", "D", "dt_bias")}
    wide = {name: array.astype(mx.float32) for name, array in low.items()}
    assert same(*(metal.mamba3_scan(replace(inputs, **some)) for some in (low, wide)))


@both_kinds
def test_what_is_no_number_stays_none(mimo: bool) -> None:
    """A NaN shows in the same places of y and of the state as in the specification; but a filtered token writes
    nothing, where the specification adds 0 times it."""
    inputs = replace(mamba3_case(1, 12, mimo=mimo), threshold=None)
    for name in ("x", "dt", "A", "B", "C", "trap", "z"):
        values = np.array(getattr(inputs, name))
        values[0, 3].flat[1] = np.nan
        broken = replace(inputs, **{name: mx.array(values)})
        got, expected = metal.mamba3_scan(broken), reference.mamba3_scan(broken)
        pairs = [(got[0], expected[0]), (got[1].ssm, expected[1].ssm), (got[1].k, expected[1].k)]
        for a, b in pairs[: 1 if name == "dt" else 3]:  # an angle that is none is undefined: only that it shows
            np.testing.assert_array_equal(np.isnan(np.array(a)), np.isnan(np.array(b)), err_msg=name)


def test_directions_alone() -> None:
    """cos and sin of any angle, all eighths of a turn and their neighbours among them."""
    eighths = (np.arange(8, dtype=np.int64)[:, None] * 2**29 + np.arange(-2, 3)).ravel() % 2**32
    angle = np.concatenate([eighths, np.random.default_rng(0).integers(0, 2**32, 40000)]).astype(np.uint32)
    body = "const uint i = thread_position_in_grid.x; const float2 way = longmamba_direction(a[i]);"
    run = metal_kernel("way", ["a"], ["c", "s"], body + " c[i] = way.x; s[i] = way.y;", header=source("turns"))
    shapes = {"output_shapes": [angle.shape] * 2, "output_dtypes": [mx.float32] * 2}
    got = run(inputs=[mx.array(angle)], **shapes, grid=(len(angle), 1, 1), threadgroup=(64, 1, 1))
    turn = angle.astype(np.float64) * (2 * math.pi / 2**32)
    for values, expected in zip(got, (np.cos(turn), np.sin(turn)), strict=True):
        assert np.abs(np.array(values) - expected).max() <= 9e-8
        assert abs((np.array(values) - expected).mean()) <= 2e-9
    # Whether it turns too far on average shows where radians are largest: just below an eighth of a turn.
    far = (angle % 2**30 < 2**29) & (angle % 2**30 > 2**29 - 2**26)
    cos, sin = (np.array(values).astype(np.float64) for values in got)
    assert abs((sin * np.cos(turn) - cos * np.sin(turn))[far].mean()) <= 5e-9
    for values, expected in zip(turns.direction(mx.array(angle)), (np.cos(turn), np.sin(turn)), strict=True):
        assert np.abs(np.array(values) - expected).max() <= 1.5e-7


def test_whole_numbers_alone() -> None:
    sizes = np.float32(2.0) ** np.arange(-40, 59).repeat(101)
    x = np.random.default_rng(0).standard_normal(9999).astype(np.float32) * sizes
    x = np.concatenate([x, np.float32([np.inf, -np.inf, 0.0, 2**20, 3e38])])
    body = "const uint i = thread_position_in_grid.x; o[i] = longmamba_whole(a[i]);"
    run = metal_kernel("whole", ["a"], ["o"], body, header=source("turns"))
    shapes = {"output_shapes": [x.shape], "output_dtypes": [mx.int64]}
    (got,) = run(inputs=[mx.array(x)], **shapes, grid=(len(x), 1, 1), threadgroup=(64, 1, 1))
    np.testing.assert_array_equal(np.array(got), turns.whole(np, x))


def test_keys_too_wide_for_the_kernel_go_through_plain_mlx(emulated: Options) -> None:
    inputs = mamba3_case(1, 3, mimo=True, rank=17)
    assert same(metal.mamba3_scan(inputs), chunked.mamba3_scan(inputs)) and emulated.launches == 0


@pytest.mark.parametrize("rank", [1, 2, 3, 4, 8, 16])
@pytest.mark.parametrize("states", [2, 6, 50, 64, 96, 128, 256])
@pytest.mark.parametrize("rows", [1, 7, 32, 64, 128])
def test_layout(rows: int, states: int, rank: int) -> None:
    if not kernel.fits(rank, states):
        assert rank * states > 2048
        return
    plan = kernel.layout(rows, states, rank)
    assert states % plan.lanes == 0 and plan.lanes in (1, 2, 4, 8, 16, 32)
    assert plan.together in (1, 2) and plan.together <= plan.lanes
    assert plan.group % 32 == 0 and plan.group <= 256 and plan.group % plan.lanes == 0
    threads = -(-rows // plan.together) * plan.lanes
    assert plan.width % plan.group == 0 and 0 <= plan.width - threads < plan.group
    assert 4 * ((2 * plan.staged + 1) * rank * states + 4 * plan.staged) <= 32 << 10
