"""The gap above the clamp: found where there is one, and nothing else changed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from longmamba_samples import TinyModel, raw_sample

from longmamba_mlx.longmamba import Calibration, FilterSettings, build_plan, collect
from longmamba_mlx.longmamba.plan import LayerPlan
from longmamba_mlx.longmamba.thresholds import MassCurve, gap_thresholds, knot_ranks, mass_curve

FREE = (0.0, float("inf"))


def two_kinds(important: float, distance: float, seed: int = 0, tokens: int = 4000) -> np.ndarray:
    """(1, tokens): a share of important tokens whose raw values all lie `distance` above the others'."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(-6, 0.5, tokens)
    count = round(important * tokens)
    raw[:count] = raw[count:].max() + distance + rng.exponential(0.1, count)
    return rng.permutation(raw)[None].astype(np.float32)


def curve_of(raw: np.ndarray, knots: int = 192) -> MassCurve:
    ranks = knot_ranks(raw.shape[1], knots)
    return MassCurve(ranks, *mass_curve(raw, ranks, FREE))


@given(st.integers(0, 200), st.floats(0.055, 0.095), st.floats(1.0, 5.0))
@settings(max_examples=40, deadline=None)
def test_lies_between_the_two_kinds_of_tokens(seed: int, important: float, distance: float) -> None:
    raw = two_kinds(important, distance, seed)
    threshold = gap_thresholds(curve_of(raw, 10_000), 0.1)[0]
    kept = (raw > threshold).sum()
    assert kept == round(important * raw.shape[1])


def test_coarse_knots_miss_it_by_no_more_than_their_own_distance() -> None:
    raw = two_kinds(0.07, 3.0)
    curve = curve_of(raw)
    kept = int((raw > gap_thresholds(curve, 0.1)[0]).sum())
    place = np.searchsorted(curve.ranks, 280)
    assert curve.ranks[place - 1] <= kept <= curve.ranks[place]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("clamp", [0.0, 0.05, 0.2])
def test_there_is_none_in_one_smooth_heap(seed: int, clamp: float) -> None:
    raw = raw_sample(units=4, windows=16, length=512, seed=seed).reshape(4, -1)
    assert (gap_thresholds(curve_of(raw), clamp) == -np.inf).all()


@pytest.mark.parametrize("important", [0.01, 0.2])
def test_only_the_stretch_above_the_clamp_counts(important: float) -> None:
    """Important tokens that are far fewer or more than the clamp says are none of its business."""
    assert gap_thresholds(curve_of(two_kinds(important, 2.0)), 0.1)[0] == -np.inf


def test_equal_step_sizes_have_none() -> None:
    assert gap_thresholds(curve_of(np.full((2, 100), -3, np.float32)), 0.1).tolist() == [-np.inf, -np.inf]
    assert gap_thresholds(curve_of(np.full((1, 3), -3, np.float32)), 0.1).tolist() == [-np.inf]


def plans(calibration: Calibration, tokens: int, theta: float = 0.0) -> tuple[tuple[LayerPlan, ...], ...]:
    """The layers' plans in paper and in gap mode."""
    return tuple(
        build_plan(calibration, FilterSettings(mode, theta=theta, clamp=0.05, combine="avg"), tokens).layers
        for mode in ("paper", "gap")
    )


def test_a_plan_is_the_papers_until_the_table_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = np.random.default_rng(3).integers(0, 512, (8, 64)).astype(np.uint32)
    calibration = collect(TinyModel(), windows, clamps=(0.05,))
    monkeypatch.setattr(
        "longmamba_mlx.longmamba.plan.gap_thresholds", lambda curve, clamp: np.full(4, 20.0, np.float32)
    )
    for tokens, raised in ((64, False), (100, False), (100_000, True)):
        for paper, gap in zip(*plans(calibration, tokens), strict=True):
            np.testing.assert_array_equal(paper.is_global, gap.is_global)
            if raised:
                np.testing.assert_array_equal(gap.thresholds, np.where(gap.is_global, 20.0, -np.inf))
            else:
                np.testing.assert_array_equal(paper.thresholds, gap.thresholds)


def test_a_gap_below_the_table_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = np.random.default_rng(3).integers(0, 512, (8, 64)).astype(np.uint32)
    calibration = collect(TinyModel(), windows, clamps=(0.05,))
    monkeypatch.setattr(
        "longmamba_mlx.longmamba.plan.gap_thresholds", lambda curve, clamp: np.full(4, -30.0, np.float32)
    )
    for paper, gap in zip(*plans(calibration, 100_000), strict=True):
        np.testing.assert_array_equal(paper.thresholds, gap.thresholds)
