"""Mamba-2's chunked kernel, run thread by thread, against the float64 oracle and the sequential kernel."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from benchmarks import kernel_model
from longmamba_mlx.errors import UsageError
from longmamba_mlx.filtering import build_plan, collect, policy_for
from longmamba_mlx.inference.prefill import prefill
from longmamba_mlx.inference.reading import Reading
from longmamba_mlx.metal_kernels import chunked_ssd
from longmamba_mlx.metal_kernels import scan as scan_launches
from longmamba_mlx.models import FAMILIES, LanguageModel
from longmamba_mlx.models.config.parse import ModelConfig
from longmamba_mlx.models.loading import make_ready
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.ops import metal
from longmamba_mlx.ops import oracle as oracles
from longmamba_mlx.ops.inputs import ScanInputs, takes
from tests.emulator.emulator import Options
from tests.metal.test_scan_kernel import FLOAT32, Y_TOLERANCE, Case, bits, error
from tests.models.samples import draw, random_model
from tests.ops.cases import DTYPES, selective_case, ssd_case

pytestmark = pytest.mark.usefixtures("emulated")

run = takes(ScanInputs)(metal.ssd_scan)
PER_TOKEN = ("x", "dt", "B", "C", "z")


def small(length: int = 128, heads: int = 2, width: int = 16, groups: int = 1, states: int = 64, **more: Any) -> Case:
    return ssd_case(more.pop("batch", 1), length, heads, width, groups, states, **more)


def check(case: Case, tolerance: float = 1e-6, y_tolerance: float | None = None) -> None:
    y, state, kept = run(**case, return_kept=True)
    expected_y, expected_state, expected_kept = oracles.ssd_scan(**case)
    assert y.dtype == case["x"].dtype and state.dtype == mx.float32
    assert error(y, expected_y) <= (tolerance if y_tolerance is None else y_tolerance)
    assert error(state, expected_state) <= tolerance
    np.testing.assert_array_equal(np.array(kept), expected_kept)


def cut(case: Case, part: slice) -> Case:
    return case | {key: case[key][:, part] for key in PER_TOKEN if case[key] is not None}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("length", "launches"), [(63, 1), (64, 1), (128, 1), (150, 2)])
def test_lengths_and_dtypes(dtype: str, length: int, launches: int, emulated: Options) -> None:
    """Whole chunks go through this kernel, what remains through the sequential one."""
    check(small(length, batch=2, dtype=dtype, seed=length), FLOAT32, Y_TOLERANCE[dtype])
    assert emulated.launches == launches
    assert (emulated.products > 0) == (length >= 64)


@pytest.mark.parametrize(
    ("heads", "width", "groups", "states"),
    [
        (2, 8, 2, 64),
        (2, 32, 1, 64),
        (1, 40, 1, 64),
        (1, 64, 1, 128),
        (1, 80, 1, 128),
        (1, 128, 1, 64),
        (1, 128, 1, 192),
        (1, 64, 1, 256),
    ],
)
def test_sizes(heads: int, width: int, groups: int, states: int) -> None:
    check(small(64, heads, width, groups, states))


@pytest.mark.parametrize(("heads", "groups"), [(6, 1), (6, 3), (6, 6)])
def test_groups(heads: int, groups: int) -> None:
    check(small(64, heads, 8, groups, batch=2))


@pytest.mark.parametrize(
    ("rows", "states", "at_once"),
    [
        *((64, 128, 64), (32, 128, 32), (80, 128, 80), (64, 64, 64), (64, 256, 64), (128, 64, 128)),
        *((128, 256, 64), (128, 128, 64)),  # half of a head in each threadgroup: registers
        *((12, 64, None), (64, 100, None), (64, 16, None), (64, 512, None)),
    ],
)
def test_rows_at_once(rows: int, states: int, at_once: int | None) -> None:
    assert chunked_ssd.rows_at_once(rows, states) == at_once


@pytest.mark.parametrize(("width", "states"), [(12, 64), (16, 32)])
def test_other_sizes_take_one_token_after_the_other(width: int, states: int, emulated: Options) -> None:
    check(small(128, 2, width, 1, states))
    assert emulated.products == 0


def test_it_can_be_required(emulated: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then what it does not take is an error, and nothing runs."""
    from longmamba_mlx import ops

    monkeypatch.setenv("LONGMAMBA_KERNEL", "chunked")
    before = emulated.products
    ops.ssd_scan(**small(64))
    assert emulated.products > before
    launched = emulated.launches
    with pytest.raises(UsageError, match="does not take heads of 12 rows with 64 states"):
        ops.ssd_scan(**small(64, width=12))
    with pytest.raises(UsageError, match="does not take Mamba-1's scan"):
        ops.selective_scan(**selective_case(1, 64))
    for name in ("mamba", "mamba2"):  # 8 rows, and only 8 states
        with pytest.raises(UsageError, match="does not take"):
            make_ready(random_model(name))
    monkeypatch.setenv("LONGMAMBA_KERNEL", "metal")
    with pytest.raises(UsageError, match="do not take 1,088 states"):
        ops.ssd_scan(**small(1, states=1088))
    assert emulated.launches == launched


def test_a_states_key_tells_whether_it_was_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from longmamba_mlx import ops

    kernels = []
    for wish in ("metal", "chunked", "sequential", "reference"):
        monkeypatch.setenv("LONGMAMBA_KERNEL", wish)
        kernels.append(ops.kernel())
    assert kernels == ["metal", "metal", "metal, sequential", "reference"]


def test_it_can_be_turned_off(emulated: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    from longmamba_mlx import ops

    case = small(64)
    for wish, products in (("metal", True), ("chunked", True), ("sequential", False)):
        monkeypatch.setenv("LONGMAMBA_KERNEL", wish)
        before = emulated.products
        ops.ssd_scan(**case)
        assert (emulated.products > before) == products


@pytest.mark.parametrize("left_out", ["D", "z", "dt_bias", "threshold", "initial_state", "all"])
def test_optional_arguments(left_out: str) -> None:
    names = ("D", "z", "dt_bias", "threshold", "initial_state") if left_out == "all" else (left_out,)
    check(small(64) | dict.fromkeys(names))


@pytest.mark.parametrize("gate", [True, False])
def test_reverse(gate: bool) -> None:
    check(small(150) | {"reverse": True} | ({} if gate else {"z": None}))


def test_kept_counts_can_be_left_out() -> None:
    case = small()
    assert [bits(a) for a in run(**case)] == [bits(a) for a in run(**case, return_kept=True)[:2]]


def test_range_of_dt() -> None:
    case = small(64) | {"time_step_limit": (0.1, 0.5)}
    check(case)
    check(case | {"threshold": None})
    all_filtered = case | {"threshold": mx.full(case["threshold"].shape, math.inf)}
    assert bits(run(**all_filtered)[1]) == bits(case["initial_state"])


def test_all_filtered_leaves_the_state_as_it_was() -> None:
    case = small() | {"threshold": mx.array([1e6, -3.0])}
    y, state, kept = run(**case, return_kept=True)
    assert bits(state[:, 0]) == bits(case["initial_state"][:, 0]) and bits(state[:, 1]) != bits(
        case["initial_state"][:, 1]
    )
    assert np.array(kept).max() == 1
    assert error(y, oracles.ssd_scan(**case)[0]) <= FLOAT32


def test_none_filtered_is_no_threshold() -> None:
    case = small()
    nothing = run(**case | {"threshold": mx.full(case["threshold"].shape, -math.inf)}, return_kept=True)
    none = run(**case | {"threshold": None}, return_kept=True)
    assert [bits(a) for a in nothing] == [bits(a) for a in none]


def test_ties_and_neighbouring_floats() -> None:
    """The threshold itself is filtered, the next float is kept, though most such dt are equal after the softplus."""
    case = small(64, 8, 8) | {"dt_bias": None, "threshold": mx.linspace(0.01, 0.02, 8)}
    threshold = np.array(case["threshold"])
    dt = np.broadcast_to(threshold, case["dt"].shape).copy()
    dt[:, ::3] = np.nextafter(threshold, np.float32(np.inf))
    dt[:, 1::3] = np.nextafter(threshold, np.float32(-np.inf))
    kept = run(**case | {"dt": mx.array(dt)}, return_kept=True)[2]
    np.testing.assert_array_equal(np.array(kept)[0], np.where(np.arange(64) % 3 == 0, 8, 0))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.3, 0.7, 1.0])
def test_any_share_of_kept_tokens(share: float) -> None:
    case = small(128, seed=3)
    raw = np.array(case["dt"]) + np.array(case["dt_bias"])
    check(case | {"threshold": mx.array(np.quantile(raw, 1 - share, axis=(0, 1)).astype(np.float32))})


@pytest.mark.parametrize("reverse", [False, True])
def test_a_split_at_a_chunk_is_bitwise_the_whole(reverse: bool) -> None:
    case = small(200) | {"reverse": reverse}
    y, state, kept = run(**case, return_kept=True)
    for edges in ((0, 64, 200), (0, 128, 200), (0, 64, 128, 192, 200)):
        now, parts = case["initial_state"], []
        slices = [slice(*pair) for pair in itertools.pairwise(edges)]
        for part in reversed(slices) if reverse else slices:
            got, now, counts = run(**cut(case, part) | {"initial_state": now}, return_kept=True)
            parts.append((got, counts))
        ordered = parts[::-1] if reverse else parts
        assert bits(now) == bits(state)
        assert bits(mx.concatenate([part[0] for part in ordered], axis=1)) == bits(y)
        assert np.array_equal(mx.concatenate([part[1] for part in ordered], axis=1), kept)


@pytest.mark.parametrize("reverse", [False, True])
def test_long_inputs_go_in_pieces(reverse: bool, emulated: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    case = small(300) | {"reverse": reverse}
    whole = run(**case, return_kept=True)
    before = emulated.launches
    monkeypatch.setattr(scan_launches, "MAX_TOKENS", 128)
    pieces = run(**case, return_kept=True)
    assert emulated.launches - before == 3
    assert [bits(a) for a in pieces] == [bits(a) for a in whole]


def test_any_other_split_is_the_whole_within_rounding() -> None:
    case = small(150)
    y, state = run(**case)
    first = run(**cut(case, slice(0, 70)))
    second = run(**cut(case, slice(70, None)) | {"initial_state": first[1]})
    assert error(mx.concatenate([first[0], second[0]], axis=1), oracles.as64(y)) <= 1e-6
    assert error(second[1], oracles.as64(state)) <= 1e-6


def chunky() -> LanguageModel:
    """A model with heads that divide into chunks, every parameter drawn."""
    model = FAMILIES["mamba2"](ModelConfig("mamba2", 37, 16, 2, 32, 64, 4, n_heads=4, headdim=8))
    rng = np.random.default_rng(0)
    drawn = [(path, mx.array(draw(rng, path, old.shape))) for path, old in tree_flatten(model.parameters())]
    model.update(tree_unflatten(drawn))
    return model


@pytest.mark.parametrize("chunk", [64, 100])
def test_a_resumed_reading_is_bitwise_the_undisturbed_one(
    chunk: int, emulated: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the state after any chunk, whatever the size of chunks: they end at the same tokens in both. Logits too,
    which a question would follow."""
    model, ids = chunky(), np.arange(230, dtype=np.uint32) * 11 % 37
    measured = collect(model, ids[:128].reshape(2, 64), clamps=(), knots=16)
    plan = build_plan(measured, policy_for(model.config, "curve:first=70:last=9", {"theta": 1e-9}), len(ids))
    monkeypatch.setenv("LONGMAMBA_KERNEL", "metal")
    emulated.twice = False
    states: list[ModelState] = []
    whole = prefill(model, ids, plan, chunk=chunk, on_chunk=lambda state, kept: states.append(state))
    assert whole.kept is not None and whole.logits is not None and 0 < whole.kept.mean() < 255 and emulated.products
    assert [state.tokens for state in states] == sorted({*range(chunk, 230, chunk), 70, 221, 230})
    for state in states[:-1]:
        start = Reading(state, None, plan, whole.kept[: state.tokens])
        resumed = prefill(model, ids, plan, chunk=chunk, start=start)
        assert resumed.logits is not None and np.array_equal(resumed.logits, whole.logits)
        assert np.array_equal(resumed.kept, whole.kept)
        for name, array in whole.state.arrays().items():
            assert bits(resumed.state.arrays()[name]) == bits(array), (state.tokens, name)


def test_it_agrees_with_the_sequential_kernel() -> None:
    case = small(128, batch=2)
    y, state, kept = run(**case, return_kept=True)
    other = metal.ssd_scan(ScanInputs(**case, return_kept=True), chunked=False)
    assert error(y, oracles.as64(other[0])) <= 1e-6 and error(state, oracles.as64(other[1])) <= 1e-6
    assert np.array_equal(kept, other[2])


def test_inputs_are_read_in_place() -> None:
    """One projection that holds all of them, every other state of B and C; what lies between is poison."""
    wide = mx.random.normal((2, 64, 2 * 32 + 4 * 128 + 2), key=mx.random.key(2))
    x, z, b_in, c_out, dt = mx.split(wide, [32, 64, 64 + 256, 64 + 512], axis=-1)
    case = small(64, 2, 16, 2, batch=2)
    views = {
        "x": x.reshape(2, 64, 16, 2).swapaxes(2, 3),
        "z": z.reshape(2, 64, 16, 2).swapaxes(2, 3),
        "dt": dt,
        "B": b_in.reshape(2, 64, 2, 128)[..., ::2],
        "C": c_out.reshape(2, 64, 128, 2).swapaxes(2, 3)[..., 1::2],
        "A": mx.array([-0.5, 3.0, -2.0, 3.0])[::2],
        "D": mx.broadcast_to(mx.array(0.5), (2,)),
        "initial_state": mx.random.normal((2, 2, 64, 16)).swapaxes(2, 3),
    }
    check(case | views)


def test_small_dt_between_large_ones() -> None:
    """Decays of 1e-4 next to decays of thousands: differences of one float32 sum would lose them."""
    case = small(128) | dict.fromkeys(("z", "D", "threshold"))
    case["A"] = mx.array([-1.0, -300.0])
    case["dt_bias"] = mx.full((2,), math.log(math.expm1(1e-4)))
    large = (np.arange(128) % 40 == 39).astype(np.float32) * 17
    case["dt"] = mx.broadcast_to(mx.array(large).reshape(1, 128, 1), case["dt"].shape)
    check(case, tolerance=FLOAT32)


def test_dt_of_every_size() -> None:
    case = small(64) | dict.fromkeys(("z", "D", "dt_bias", "threshold", "initial_state"))
    for low, high in ((-40.0, -30.0), (-10.0, 0.0), (0.0, 30.0), (80.0, 100.0)):
        raw = mx.linspace(low, high, 64).reshape(1, 64, 1)
        check(case | {"dt": mx.broadcast_to(raw, case["dt"].shape)})


@pytest.mark.parametrize("adversarial", [1, 2])
def test_with_the_worst_exponentials_that_metal_allows(adversarial: int, emulated: Options) -> None:
    emulated.adversarial = adversarial
    check(small(128), tolerance=1e-5)


def test_what_is_no_number_stays_none() -> None:
    """A NaN shows from its token on, and nowhere before its chunk."""
    for key in ("x", "dt", "B"):
        case = small(192) | {"threshold": None}
        values = np.array(case[key])
        values[0, 100].flat[0] = np.nan
        y, state = (np.array(a) for a in run(**case | {key: mx.array(values)}))
        assert np.isnan(state).any() and np.isnan(y[0, 100:]).any() and not np.isnan(y[0, :64]).any()


def test_what_is_no_number_in_a_filtered_token_stays_there() -> None:
    """Where fewer than eight kept tokens are left, some token's x and B are read beside them."""
    dt = np.full((1, 64, 2), -1.0, np.float32)
    dt[:, 5:8] = 1.0
    case = small(64) | {"z": None, "dt_bias": None, "dt": mx.array(dt), "threshold": mx.zeros((2,))}
    for key in ("x", "B"):
        values = np.array(case[key])
        values[0, 0].flat[0] = np.nan
        y, state = (np.array(a) for a in run(**case | {key: mx.array(values)}))
        assert np.isfinite(state).all() and np.isfinite(y[0, 1:]).all()


def products(emulated: Options, share: float) -> int:
    """8 x 8 products of a chunk of a head of 64 rows and 128 states, of whose tokens a share is kept, evenly spread."""
    emulated.twice, emulated.products = False, 0
    kept = np.floor(np.arange(1, 65) * share) > np.floor(np.arange(64) * share)
    dt = mx.array(np.where(kept, 1.0, -1.0).astype(np.float32)).reshape(1, 64, 1)
    run(**small(64, 1, 64, 1, 128) | {"dt": dt, "dt_bias": None, "threshold": mx.zeros((1,))})
    return emulated.products


def test_work_falls_with_what_is_filtered(emulated: Options) -> None:
    """Every token reads the state before its chunk: 1,024 products. The rest is for kept tokens, eight at a time."""
    counted = {share: products(emulated, share) for share in (0.0, 0.125, 0.25, 0.5, 1.0)}
    assert counted == {0.0: 1024, 0.125: 1344, 0.25: 1568, 0.5: 2016, 1.0: 2912}
    model = kernel_model.Model("a head", 1, 1, 64, 128, 0.0)
    assert {share: kernel_model.products(model, share) for share in counted} == counted


def test_the_docs_show_what_the_model_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "appendix" / "kernels.md").read_text(encoding="utf-8")
    assert kernel_model.table() in page
    modelled = kernel_model.ssm_attn(kernel_model.FIELD_MODEL, kernel_model.FIELD_GPU)
    assert f"says {modelled:.1f}." in page and f"takes {kernel_model.FIELD_MICROSECONDS:.1f} microseconds" in page
    # An M2 Max spends at best less than a twentieth of mamba2-2.7b's prefill in its scans.
    model, gpu = kernel_model.MODELS[1], kernel_model.GPUS[1]
    scan, rest = kernel_model.chunked(model, gpu, 1.0), kernel_model.matrices(model, gpu)
    assert scan / (scan + rest) <= 0.05
    assert f"about {kernel_model.tensor_operations(model, kernel_model.GPUS[2]):.0f} microseconds a token" in page
