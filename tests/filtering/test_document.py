"""The exact budget of one document, against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longmamba_mlx.errors import NumericError
from longmamba_mlx.filtering.delta import delta_of
from longmamba_mlx.filtering.thresholds import document_threshold, document_thresholds
from tests.filtering.samples import kept_mass, raw_sample

FREE = (0.0, float("inf"))


def nearest_cut(raw: np.ndarray, budget: float) -> float:
    """Of all cuts between different values, but for the empty one: the smallest distance from the budget."""
    ordered = sorted(raw.tolist(), reverse=True)
    distances, mass = [], 0.0
    for value, following in zip(ordered, [*ordered[1:], None], strict=True):
        mass += math.log1p(math.exp(value))
        if following != value:
            distances.append(abs(mass - budget))
    return min(distances)


@given(
    st.lists(st.integers(-200, 50), min_size=1, max_size=60),
    st.sampled_from([1, 10, 40]),
    st.floats(0.001, 1.3),
)
@settings(max_examples=150, deadline=None)
def test_the_cut_nearest_to_the_budget(values: list[int], step: int, share: float) -> None:
    raw = (np.array(values) // step * step / 10).astype(np.float32)
    budget = float(share * delta_of(raw).sum())
    kept = kept_mass(raw, float(document_threshold(raw, budget)))
    assert kept > 0 and abs(kept - budget) <= nearest_cut(raw, budget) + 1e-9


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [5000, 50_000])
def test_within_one_token_of_the_budget(size: int, seed: int) -> None:
    raw = raw_sample(units=1, windows=1, length=size, seed=seed)[0, 0]
    for share in (0.9, 0.5, 0.1, 0.01, 1e-6):
        budget = float(share * delta_of(raw).sum())
        kept = raw[raw > document_threshold(raw, budget)]
        nearest = abs(delta_of(kept).sum() - budget)
        assert nearest <= delta_of(kept.min()) or len(kept) == 1


def test_a_document_within_its_budget_is_not_filtered() -> None:
    raw = raw_sample(units=1, windows=1, length=6000)[0, 0]
    assert document_threshold(raw, float(delta_of(raw).sum())) == -np.inf
    assert document_threshold(raw, 1e9) == -np.inf


def test_constant_step_sizes_are_all_kept_and_a_giant_one_alone() -> None:
    assert document_threshold(np.full(9000, -4.0, np.float32), 0.1) == -np.inf
    giant = np.full(9000, -8.0, np.float32)
    giant[777] = 50.0
    kept = giant > document_threshold(giant, 20.0)
    assert kept.sum() == 1 and kept[777]


@given(st.integers(0, 100))
def test_values_equal_but_for_rounding_stay_together(seed: int) -> None:
    """The first layer of a Mamba-2 model: few different values, each many times, never quite the same."""
    rng = np.random.default_rng(seed)
    levels = np.linspace(-6, -1, 12)[rng.integers(0, 12, 500)].astype(np.float32)
    noisy = levels * (1 + rng.uniform(-2e-7, 2e-7, (2, 500))).astype(np.float32)
    thresholds = [document_threshold(raw, float(0.3 * delta_of(levels).sum())) for raw in (levels, *noisy)]
    masks = [raw > threshold for raw, threshold in zip((levels, *noisy), thresholds, strict=True)]
    assert np.array_equal(masks[0], masks[1]) and np.array_equal(masks[0], masks[2])
    assert all(np.array_equal(noisy[0] > threshold, masks[0]) for threshold in thresholds)


def test_a_group_is_kept_or_dropped_by_what_is_nearer_to_the_budget() -> None:
    raw = np.array([-1.0] + [-4.0] * 10 + [-6.0] * 10, np.float32)
    first, group = float(delta_of(raw[0])), float(delta_of(raw[1])) * 10
    assert (raw > document_threshold(raw, first + 0.4 * group)).sum() == 1
    assert (raw > document_threshold(raw, first + 0.6 * group)).sum() == 11
    assert (raw > document_threshold(raw, 0.1 * first)).sum() == 1


def test_noise_smaller_than_the_gap_flips_nothing() -> None:
    raw = np.sort(raw_sample(units=1, windows=1, length=300)[0, 0])
    threshold = document_threshold(raw, float(0.2 * delta_of(raw).sum()))
    place = int((raw <= threshold).sum())
    assert threshold == pytest.approx((raw[place] + raw[place - 1]) / 2, abs=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("size", [10, 9000])
def test_broken_step_sizes_are_refused(wrong: float, size: int) -> None:
    raw = np.full(size, -3.0, np.float32)
    raw[3] = wrong
    with pytest.raises(NumericError):
        document_threshold(raw, 0.2)


def test_step_sizes_of_zero_are_dropped() -> None:
    raw = np.array([-np.inf, -2.0, -3.0, -np.inf], np.float32)
    assert list(raw > document_threshold(raw, float(delta_of(np.float32(-2.0))) / 2)) == [
        False,
        True,
        False,
        False,
    ]


def test_columns_are_independent_of_their_block() -> None:
    raw = raw_sample(units=40, windows=1, length=500)[:, 0].T
    units = np.flatnonzero(np.random.default_rng(0).random(40) < 0.7)
    budgets = delta_of(raw).sum(axis=0)[units] / 9
    together = document_thresholds(raw, units, budgets, FREE)
    alone = [
        document_threshold(raw[:, unit].copy(), float(budget)) for unit, budget in zip(units, budgets, strict=True)
    ]
    assert np.array_equal(together, np.array(alone, np.float32)) and together.dtype == np.float32


def test_a_million_tokens() -> None:
    raw = np.random.default_rng(0).normal(-5, 1.5, 10**6).astype(np.float32)
    budget = float(delta_of(raw[:2000]).sum())
    threshold = document_threshold(raw, budget)
    assert abs(kept_mass(raw, float(threshold)) - budget) <= float(delta_of(threshold))
