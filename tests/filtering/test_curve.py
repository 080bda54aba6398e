"""The closed form: equal to the table, monotone, on budget, and sane where the numbers are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longmamba_mlx.filtering.calibration.paper_table import clamped, paper_lengths, table_rows
from longmamba_mlx.filtering.delta import delta_of, raw_of
from longmamba_mlx.filtering.thresholds import (
    MassCurve,
    clamped_window,
    curve_thresholds,
    knot_ranks,
    mass_curve,
    saturation_lengths,
)
from tests.filtering.samples import kept_mass, raw_sample

FREE = (0.0, float("inf"))


def curve_of(raw: np.ndarray, knots: int = 10_000, limit: tuple[float, float] = FREE) -> MassCurve:
    """The curve of raw (units, tokens); with the default every rank is a knot."""
    ranks = knot_ranks(raw.shape[1], knots)
    return MassCurve(ranks, *mass_curve(raw, ranks, limit))


@pytest.mark.parametrize("clamp", [0.0, 0.05, 0.1, 0.2])
def test_equal_to_the_table_within_neighbouring_values(clamp: float) -> None:
    length = 512
    raw = raw_sample(units=6, windows=1, length=length)[:, 0]
    curve, cut = curve_of(raw), clamped(delta_of(raw), clamp)
    descending = np.sort(cut, axis=1)[:, ::-1]
    lengths = paper_lengths(length)[2:]
    rows, _ = table_rows(descending, cut.sum(axis=1), lengths)
    for tokens, row in zip(lengths, rows, strict=True):
        closed = curve_thresholds(curve, length / tokens, clamp, FREE)
        table = raw_of(row)
        for unit in range(len(raw)):
            kept = [int((raw[unit] > threshold[unit]).sum()) for threshold in (closed, table)]
            # The table keeps the token at which the budget is crossed, the curve whatever is nearer to the
            # budget, and half-pixel centres make the table's largest value count one and a half times.
            assert abs(kept[0] - kept[1]) <= 2


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.05, 0.3]), st.sampled_from([16, 64, 10_000]))
@settings(max_examples=30, deadline=None)
def test_monotone_in_the_length(seed: int, clamp: float, knots: int) -> None:
    curve = curve_of(raw_sample(units=3, windows=1, length=300, seed=seed)[:, 0], knots)
    lengths = np.concatenate([np.linspace(301, 900, 40), np.geomspace(900, 1e7, 40)])
    thresholds = np.stack([curve_thresholds(curve, 300 / tokens, clamp, FREE) for tokens in lengths])
    assert (np.diff(thresholds, axis=0) >= 0).all()
    assert np.isfinite(thresholds[-1]).all()


@pytest.mark.parametrize("fraction", [1.0, 1.5])
def test_nothing_is_filtered_up_to_the_training_length(fraction: float) -> None:
    assert (curve_thresholds(curve_of(raw_sample()[:, 0]), fraction, 0.05, FREE) == -np.inf).all()


@pytest.mark.parametrize("times", [2, 3, 10, 40])
def test_the_kept_mass_is_the_budget_to_within_one_token(times: int) -> None:
    length = 400
    raw = raw_sample(units=6, windows=1, length=length)[:, 0]
    thresholds = curve_thresholds(curve_of(raw), 1 / times, 0.0, FREE)
    for unit in range(len(raw)):
        budget = delta_of(raw[unit]).sum() / times
        one_token = delta_of(raw[unit].max())
        # A document of `times` copies: each of them keeps its share of the budget.
        assert abs(kept_mass(raw[unit], thresholds[unit]) - budget) <= one_token


def test_the_clamped_curve_is_on_budget_and_then_stays_at_the_clamp() -> None:
    length, clamp = 400, 0.1
    raw = raw_sample(units=6, windows=1, length=length)[:, 0]
    curve, cut = curve_of(raw), clamped(delta_of(raw), clamp)
    saturation = saturation_lengths(curve, length, clamp, FREE)
    for tokens in (500, 800, 1600, 6400, 400_000):
        thresholds = curve_thresholds(curve, length / tokens, clamp, FREE)
        for unit in range(len(raw)):
            if tokens < saturation[unit]:
                kept, budget = (
                    cut[unit][raw[unit] > thresholds[unit]].sum(),
                    cut[unit].sum() * length / tokens,
                )
                assert abs(kept - budget) <= cut[unit].max()
            else:
                assert thresholds[unit] == np.sort(raw[unit])[::-1][int(length * clamp) - 1]
    assert (saturation > length).all() and (saturation < 400_000).all()


def test_few_knots_are_enough() -> None:
    raw = raw_sample(units=8, windows=8, length=512).reshape(8, -1)
    exact, coarse = curve_of(raw), curve_of(raw, 64)
    assert len(coarse.ranks) <= 64 and coarse.ranks[0] == 1 and coarse.ranks[-1] == raw.shape[1]
    for times in (1.3, 2, 4, 16, 64):
        for unit, pair in enumerate(
            zip(*(curve_thresholds(c, 1 / times, 0.0, FREE) for c in (exact, coarse)), strict=True)
        ):
            masses = [kept_mass(raw[unit], threshold) for threshold in pair]
            one_token = float(delta_of(np.float32(pair[0])))
            assert abs(masses[1] - masses[0]) <= 0.01 * masses[0] + 2 * one_token


@pytest.mark.parametrize("clamp", [0.0, 0.05])
@pytest.mark.parametrize(
    "raw",
    [
        np.full((1, 50), -4.0),
        np.concatenate([np.full((1, 49), -12.0), np.full((1, 1), 20.0)], axis=1),
        np.array([[-4.0, -4.0, -4.0, -5.0, -6.0, -7.0]]),
        np.array([[-3.0, -3.5]]),
        np.array([[-3.0]]),
        np.full((1, 20), -1e5),
    ],
)
def test_ties_and_extremes_never_drop_everything(raw: np.ndarray, clamp: float) -> None:
    curve = curve_of(raw.astype(np.float32))
    for tokens in (raw.shape[1] + 1, 3 * raw.shape[1], 10**6, 10**9):
        threshold = curve_thresholds(curve, raw.shape[1] / tokens, clamp, FREE)
        assert not np.isnan(threshold).any() and (raw > threshold).any()


@pytest.mark.parametrize(("tokens", "kept"), [(0.5, 1), (1.5, 1), (2.5, 5), (3.9, 5), (4.3, 5), (6.0, 8)])
def test_ties_are_kept_or_dropped_together(tokens: float, kept: int) -> None:
    raw = np.array([[-1.0, -4.0, -4.0, -4.0, -4.0, -6.0, -6.0, -6.0]], np.float32)
    delta = delta_of(raw)[0]
    mass = delta[0] + np.interp(tokens, [0, 4, 7], [0, 4 * delta[1], 4 * delta[1] + 3 * delta[5]])
    thresholds = curve_thresholds(curve_of(raw), float(mass / delta.sum()), 0.0, FREE)
    assert (raw > thresholds).sum() == kept


@given(st.integers(0, 300), st.sampled_from([20, 10_000]))
@settings(max_examples=30, deadline=None)
def test_monotone_and_sane_where_values_repeat(seed: int, knots: int) -> None:
    rng = np.random.default_rng(seed)
    raw = np.linspace(-7, 1, 15)[rng.integers(0, 15, (3, 300))].astype(np.float32)
    curve = curve_of(raw, knots)
    lengths = np.concatenate([np.linspace(301, 900, 40), np.geomspace(900, 1e7, 40)])
    thresholds = np.stack([curve_thresholds(curve, 300 / tokens, 0.0, FREE) for tokens in lengths])
    assert (np.diff(thresholds, axis=0) >= 0).all() and (raw.max(axis=1) > thresholds[-1]).all()


@given(st.integers(0, 200), st.floats(0.05, 20))
@settings(max_examples=30, deadline=None)
def test_scaling_step_sizes_changes_no_mask(seed: int, scale: float) -> None:
    raw = raw_sample(units=2, windows=1, length=150, seed=seed)[:, 0]
    scaled = raw_of(scale * delta_of(raw))
    for clamp in (0.0, 0.1):
        before = raw > curve_thresholds(curve_of(raw), 1 / 7, clamp, FREE)[:, None]
        after = scaled > curve_thresholds(curve_of(scaled), 1 / 7, clamp, FREE)[:, None]
        # Interpolation between two ranks is linear in raw, so one token may fall on the other side.
        assert (before.sum(axis=1) - after.sum(axis=1) <= 1).all()
        assert (np.abs(before.astype(int) - after.astype(int)).sum(axis=1) <= 1).all()


@given(st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_permutations(random: object) -> None:
    raw = raw_sample(units=4, windows=1, length=120)[:, 0]
    tokens, units = list(range(120)), list(range(4))
    random.shuffle(tokens)  # type: ignore[attr-defined]
    random.shuffle(units)  # type: ignore[attr-defined]
    plain = curve_thresholds(curve_of(raw, 40), 1 / 5, 0.05, FREE)
    assert np.array_equal(curve_thresholds(curve_of(raw[:, tokens], 40), 1 / 5, 0.05, FREE), plain)
    assert np.array_equal(curve_thresholds(curve_of(raw[units], 40), 1 / 5, 0.05, FREE), plain[units])


def test_pooling_identical_windows_changes_at_most_one_rank() -> None:
    raw = raw_sample(units=4, windows=1, length=200)[:, 0]
    once = curve_thresholds(curve_of(raw), 1 / 6, 0.0, FREE)
    twice = curve_thresholds(curve_of(np.concatenate([raw, raw], axis=1)), 1 / 6, 0.0, FREE)
    assert (np.abs((raw > once[:, None]).sum(axis=1) - (raw > twice[:, None]).sum(axis=1)) <= 1).all()


def test_clamped_sums_from_knots_equal_direct_ones() -> None:
    raw = raw_sample(units=5, windows=1, length=2000)[:, 0]
    rates = np.exp(np.random.default_rng(3).uniform(-2, 2, (5, 4)))
    cut = clamped(delta_of(raw), 0.1)
    direct = np.log(np.exp(-cut[:, :, None] * rates[:, None]).mean(axis=2)).sum(axis=1)
    for knots, precision in ((10_000, 1e-5), (64, 5e-3)):
        budget, steps = clamped_window(curve_of(raw, knots), 0.1, rates, FREE)
        assert budget == pytest.approx(cut.sum(axis=1), rel=precision)
        assert steps == pytest.approx(direct, rel=precision)


def test_the_clip_after_softplus_counts() -> None:
    raw = raw_sample(units=3, windows=1, length=300)[:, 0]
    limit = (0.01, 0.1)
    thresholds = curve_thresholds(curve_of(raw, limit=limit), 1 / 4, 0.0, limit)
    for unit in range(3):
        kept = delta_of(raw[unit][raw[unit] > thresholds[unit]], limit).sum()
        assert kept == pytest.approx(delta_of(raw[unit], limit).sum() / 4, abs=0.1)
