"""FilterPlan: which thresholds, when none, what the document decides, digests and notices."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest

from longmamba_mlx.errors import CalibrationError
from longmamba_mlx.filtering import Calibration, FilterPlan, build_plan
from longmamba_mlx.filtering.calibration.collect import summarise
from longmamba_mlx.filtering.calibration.paper_table import paper_lengths
from longmamba_mlx.filtering.decay import log_decay
from longmamba_mlx.filtering.delta import delta_of
from longmamba_mlx.filtering.thresholds import knot_ranks
from tests.filtering.samples import kept_mass, policy, raw_sample

FREE = (0.0, math.inf)
RAW = raw_sample(units=6, windows=3, length=200)


@cache
def calibration(length: int = 200, modes: int = 1, rate: float = 0.0) -> Calibration:
    """Two layers: the sample's units, half of them global at theta .05, or all rates as given."""
    raw = RAW if length == 200 else raw_sample(units=6, windows=1, length=length)
    budgets = delta_of(raw).sum(axis=2).mean(axis=1)
    nats = np.where(np.arange(6) % 2 == 0, 1.0, 30.0)
    rates = np.full(6, rate) if rate else nats / budgets
    rates = np.asarray(rates[:, None] * np.arange(1, modes + 1), np.float32)
    ranks = knot_ranks(raw.shape[1] * length, 256)
    layer = summarise(raw, rates, ranks, clamps=(0.0, 0.1), dt_range=FREE)
    return Calibration((layer, layer), ranks, length, raw.shape[1], text_digest="t")


def fixed(mode: str, total: int, **options: Any) -> FilterPlan:
    return build_plan(calibration(), policy(mode, clamp=0.1, **options), total)


@pytest.mark.parametrize("mode", ["off", "longmamba", "paper", "curve", "document"])
@pytest.mark.parametrize("total", [1, 199, 200])
def test_nothing_is_filtered_up_to_the_training_length(mode: str, total: int) -> None:
    plan = fixed(mode, total)
    assert plan.is_off and not plan.needs_document and not plan.notices
    assert plan.thresholds(0) is None and plan.resolve(1, RAW[:, 0].T) is None


def test_off_is_off_and_paper_starts_where_the_released_code_does() -> None:
    assert fixed("off", 10**6).is_off
    assert fixed("paper", 299).is_off and not fixed("paper", 300).is_off
    assert not fixed("curve", 201).is_off and not fixed("document", 201).is_off


@pytest.mark.parametrize("mode", ["paper", "curve"])
def test_only_global_units_are_filtered(mode: str) -> None:
    plan = fixed(mode, 2000)
    thresholds = plan.thresholds(0)
    assert thresholds is not None and thresholds.dtype == np.float32
    assert np.isfinite(thresholds[::2]).all() and (thresholds[1::2] == -np.inf).all()
    assert plan.global_shares == (0.5, 0.5) and not plan.needs_document
    assert np.array_equal(plan.resolve(0, RAW[:, 0].T), thresholds)


def test_a_model_without_global_units_is_vanilla() -> None:
    for mode in ("paper", "curve", "document"):
        plan = build_plan(calibration(rate=1e6), policy(mode, clamp=0.1), 5000)
        assert plan.is_off and plan.thresholds(0) is None and plan.resolve(0, RAW[:, 0].T) is None
        assert "nothing is filtered" in plan.notices[0] and plan.global_shares == (0.0, 0.0)


def test_theta_zero_makes_every_unit_global() -> None:
    assert fixed("document", 2000, theta=0.0).global_shares == (1.0, 1.0)


def test_the_documents_own_budget() -> None:
    plan = fixed("document", 1000)
    raw = raw_sample(units=6, windows=1, length=1000, seed=4)[:, 0].T
    assert plan.needs_document and plan.waits(0)
    with pytest.raises(ValueError, match="resolve"):
        plan.thresholds(0)
    thresholds = plan.resolve(0, raw)
    assert thresholds is not None and (thresholds[1::2] == -np.inf).all()
    for unit in (0, 2, 4):
        budget = float(delta_of(RAW[unit]).sum(axis=1).mean())
        if delta_of(raw[:, unit]).sum() <= budget:
            assert thresholds[unit] == -np.inf
        else:
            kept = kept_mass(raw[:, unit], float(thresholds[unit]))
            assert abs(kept - budget) <= delta_of(raw[:, unit].max())


@pytest.mark.parametrize("times", [2, 8])
def test_copies_of_the_window_keep_its_mass(times: int) -> None:
    layer = summarise(RAW[:, :1], np.ones((6, 1), np.float32), knot_ranks(200, 256), dt_range=FREE)
    single = Calibration((layer,), knot_ranks(200, 256), 200, 1, text_digest="t")
    raw = np.tile(RAW[:, 0], times).T
    raw = raw + np.random.default_rng(0).uniform(-1e-4, 1e-4, raw.shape).astype(np.float32)
    plan = build_plan(single, policy("document", theta=0.0), 200 * times)
    thresholds = plan.resolve(0, raw)
    assert thresholds is not None
    for unit in range(6):
        kept, budget = kept_mass(raw[:, unit], float(thresholds[unit])), float(layer.budgets[0, unit])
        assert abs(kept - budget) <= delta_of(raw[:, unit].max())


def test_a_document_with_little_to_say_is_not_filtered() -> None:
    assert fixed("document", 1000).resolve(0, np.full((1000, 6), -20, np.float32)) is None


def test_a_sample_of_the_document_has_its_share_of_the_budget() -> None:
    raw = raw_sample(units=6, windows=1, length=4000, seed=2)[:, 0].T
    plan = fixed("document", 4000, theta=0.0)
    whole, sample = plan.resolve(0, raw), plan.resolve(0, raw[::4])
    assert whole is not None and sample is not None
    for unit in range(6):
        masses = [kept_mass(raw[:, unit], float(threshold[unit])) for threshold in (whole, sample)]
        assert abs(masses[1] - masses[0]) <= 0.25 * masses[0] + delta_of(raw[:, unit].max())


@pytest.mark.parametrize("mode", ["curve", "document"])
def test_a_smaller_budget_filters_more(mode: str) -> None:
    raw = raw_sample(units=6, windows=1, length=3000, seed=2)[:, 0].T
    filters = [policy(mode, clamp=0.0, budget_factor=factor) for factor in (0.5, 1.0, 2.0)]
    half, one, double = (build_plan(calibration(), each, 3000).resolve(0, raw) for each in filters)
    assert half is not None and one is not None and double is not None
    assert (half >= one).all() and (one >= double).all() and (half[::2] > double[::2]).any()


def test_raw_of_another_shape_is_refused() -> None:
    plan = fixed("document", 1000)
    for wrong in (np.zeros((1000, 5)), np.zeros(1000), np.zeros((0, 6))):
        with pytest.raises(ValueError, match="raw must be"):
            plan.resolve(0, wrong.astype(np.float32))


def test_fixed_thresholds_make_a_plan_that_needs_nothing_more() -> None:
    plan = fixed("document", 1000)
    raw = raw_sample(units=6, windows=1, length=1000, seed=4)[:, 0].T
    thresholds = [plan.resolve(0, raw), None]
    done = plan.resolved(thresholds)
    assert not done.needs_document and done.digest() != plan.digest() and done.policy == plan.policy
    assert np.array_equal(done.thresholds(0), thresholds[0]) and done.thresholds(1) is None
    for wrong in ([None], [np.zeros(5, np.float32), None]):
        with pytest.raises(ValueError):
            plan.resolved(wrong)


def test_digests_tell_plans_apart_and_only_those() -> None:
    assert fixed("paper", 1000).digest() == fixed("longmamba", 1000).digest()
    plans = [fixed(mode, total) for mode in ("paper", "curve", "document") for total in (1000, 1001)]
    plans += [fixed("document", 1000, theta=1e-20), fixed("document", 1000, budget_factor=0.9)]
    assert len({plan.digest() for plan in plans}) == len(plans)
    assert fixed("off", 1000).digest() == fixed("curve", 100).digest()


def test_paper_mode_takes_the_nearest_row() -> None:
    lengths = paper_lengths(200)
    table = calibration().layers[0].table(0.1)
    for total, row in ((349, 2), (350, 2), (351, 3), (10**7, len(lengths) - 1)):
        thresholds = fixed("paper", total).thresholds(0)
        assert thresholds is not None and np.array_equal(thresholds[::2], table.mean[row, ::2])
    largest = fixed("paper", 350, combine="max").thresholds(0)
    assert largest is not None and np.array_equal(largest[::2], table.maximum[2, ::2])


def test_beyond_the_published_table_paper_mode_says_so() -> None:
    assert fixed("paper", 96 * 200).notices == ()
    assert "19,200" in fixed("paper", 96 * 200 + 1).notices[0]
    assert fixed("curve", 10**7).notices == fixed("longmamba", 10**7).notices == ()


def test_the_published_table_ends_at_192k() -> None:
    plan = build_plan(calibration(2000), policy("paper", clamp=0.1), 192_001)
    assert "192,000" in plan.notices[0]
    assert build_plan(calibration(2000), policy("paper", clamp=0.1), 2999).is_off


def test_paper_mode_needs_its_clamp_and_curve_takes_any() -> None:
    with pytest.raises(CalibrationError, match=r"clamp 0\.07"):
        build_plan(calibration(), policy("paper", clamp=0.07), 1000)
    assert not build_plan(calibration(), policy("curve", clamp=0.07), 1000).is_off


def test_the_closed_form_is_near_the_table_of_the_same_windows() -> None:
    for total in (400, 1600, 9600):
        table, closed = fixed("paper", total).thresholds(0), fixed("curve", total).thresholds(0)
        assert table is not None and closed is not None
        # Mean of three windows' thresholds against the pooled windows' one.
        assert np.allclose(table[::2], closed[::2], atol=0.5)


@pytest.mark.parametrize("reduction", ["step_mean", "slowest", "mean_prod"])
@pytest.mark.parametrize("clamp", [0.0, 0.1])
def test_mamba1_classes_of_the_curve_follow_its_clamp(reduction: str, clamp: float) -> None:
    whole = calibration(modes=4)
    layer = whole.layers[0]
    table = layer.table(clamp)
    steps = table.step_mean
    logs = log_decay(table.budgets, layer.rates, steps, reduction, "pooled")
    for theta in (1e-6, 1e-3, 0.05, 0.3):
        if np.abs(logs - math.log(theta)).min() < 0.15:
            continue  # pooling clamps the windows together: near the boundary it may differ
        settings = policy("curve", theta=theta, clamp=clamp, reduction=reduction)
        plan = build_plan(whole, settings, 1000)
        assert np.array_equal(plan.layers[0].is_global, logs > math.log(theta))


def test_a_million_tokens() -> None:
    for mode in ("paper", "curve"):
        thresholds = fixed(mode, 10**6).thresholds(0)
        assert thresholds is not None and not np.isnan(thresholds).any()
        for unit in (0, 2, 4):
            assert (RAW[unit] > thresholds[unit]).any()


@pytest.mark.parametrize("mode", ["paper", "curve", "document"])
def test_permuted_units_permute_the_thresholds(mode: str) -> None:
    order = np.array([3, 0, 5, 1, 2, 4])
    whole = calibration()
    rates = whole.layers[0].rates
    layer = summarise(RAW[order], rates[order], whole.ranks, clamps=(0.1,), dt_range=FREE)
    other = Calibration((layer,), whole.ranks, 200, 3, text_digest="t")
    raw = raw_sample(units=6, windows=1, length=1000, seed=4)[:, 0].T
    settings = policy(mode, clamp=0.1)
    plain, permuted = (build_plan(c, settings, 1000) for c in (whole, other))
    first, second = plain.resolve(0, raw), permuted.resolve(0, np.ascontiguousarray(raw[:, order]))
    assert first is not None and second is not None and np.array_equal(first[order], second)
