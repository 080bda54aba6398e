"""Step sizes, decays in logs, global or local."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from longmamba_mlx.filtering.decay import log_decay, log_mean_exp, log_step_mean
from longmamba_mlx.filtering.delta import delta_of, raw_of
from tests.filtering.samples import raw_sample

# Nearer to zero than 1e-8 neighbouring float32 values have the same Delta even in float64.
RAW = st.floats(-600, 1e4, width=32).filter(lambda value: abs(value) > 1e-8)


@given(hnp.arrays(np.float32, 20, elements=RAW))
def test_raw_survives_the_way_through_delta(raw: np.ndarray) -> None:
    assert np.array_equal(raw_of(delta_of(raw)), raw)


@given(hnp.arrays(np.float32, 20, elements=RAW), RAW)
def test_raw_and_delta_thresholds_make_the_same_masks(raw: np.ndarray, threshold: float) -> None:
    delta = delta_of(np.float32(threshold))
    assert np.array_equal(raw > raw_of(delta), delta_of(raw) > delta)


def test_delta_matches_known_values_and_the_clip() -> None:
    assert delta_of(np.float32(0.0)) == math.log(2)
    assert delta_of(np.float32(-40.0)) == pytest.approx(math.exp(-40), rel=1e-12)
    assert delta_of(np.float32(100.0)) == 100.0
    assert delta_of(np.float32(-40.0), (0.001, 0.1)) == 0.001
    assert delta_of(np.float32(9.0), (0.001, 0.1)) == 0.1


def test_zero_and_values_below_the_clip_filter_nothing() -> None:
    assert raw_of(np.array(0.0)) == -np.inf
    assert raw_of(np.array(0.0005), (0.001, 1.0)) == -np.inf
    # At the lower limit itself every token that was clipped to it is dropped.
    assert np.float32(-50.0) <= raw_of(np.array(0.001), (0.001, 1.0))


def _direct(delta: np.ndarray, rates: np.ndarray) -> tuple[float, float, float]:
    steps = np.exp(-delta[:, None] * rates[None])
    products = steps.prod(axis=0)
    return float(np.prod(steps.mean(axis=1))), float(products.mean()), float(products.max())


@given(st.integers(0, 10_000), st.integers(1, 16))
@settings(max_examples=40)
def test_log_decays_equal_the_direct_products(seed: int, modes: int) -> None:
    rng = np.random.default_rng(seed)
    delta = rng.exponential(0.02, (1, 1, 60))
    rates = np.exp(rng.uniform(-2, 2, (1, modes)))
    steps = log_step_mean(delta, rates).T
    found = [
        float(np.exp(log_decay(delta.sum(2).T, rates, steps, name, "avg")[0]))
        for name in ("step_mean", "mean_prod", "slowest")
    ]
    assert found == pytest.approx(_direct(delta[0, 0], rates[0]), rel=1e-5)


def test_reductions_are_ordered_and_do_not_underflow() -> None:
    delta = delta_of(raw_sample(units=5, windows=2, length=2000))
    rates = np.tile(np.arange(1.0, 17.0), (5, 1)) * 20
    steps = log_step_mean(delta, rates).T
    logs = [log_decay(delta.sum(2).T, rates, steps, name, "pooled") for name in ("step_mean", "mean_prod", "slowest")]
    assert all(np.isfinite(values).all() for values in logs)
    assert (logs[0] <= logs[1] + 1e-6).all() and (logs[1] <= logs[2]).all()
    assert min(float(values.min()) for values in logs) < math.log(1e-300)


def test_step_sizes_huge_against_every_rate_stay_finite() -> None:
    logs = log_step_mean(np.full((1, 1, 3), 5000.0), np.array([[1.0, 2.0]]))
    assert logs[0, 0] == pytest.approx(3 * (-5000 + math.log(0.5)), rel=1e-6)


def test_theta_of_1e_30_separates_what_float32_cannot_tell_apart() -> None:
    rates = np.ones((2, 1))
    logs = log_decay(np.array([[69.0, 69.2]]), rates, None, "step_mean", "avg")
    assert list(logs > math.log(1e-30)) == [True, False]


def test_avg_is_the_mean_of_the_decays_and_max_the_largest() -> None:
    budgets, rates = np.array([[1.0], [3.0]]), np.array([[2.0]])
    avg, largest, pooled = (log_decay(budgets, rates, None, "slowest", how)[0] for how in ("avg", "max", "pooled"))
    assert math.exp(avg) == pytest.approx((math.exp(-2) + math.exp(-6)) / 2)
    assert (largest, pooled) == (-2.0, -4.0)


@pytest.mark.parametrize("how", ["avg", "max", "pooled"])
@pytest.mark.parametrize("reduction", ["step_mean", "slowest", "mean_prod"])
def test_one_window_or_the_same_twice_is_the_window(how: str, reduction: str) -> None:
    delta = delta_of(raw_sample(units=3, windows=1, length=100))
    rates = np.exp(np.random.default_rng(1).uniform(-1, 1, (3, 4)))
    steps = log_step_mean(delta, rates).T
    once = log_decay(delta.sum(2).T, rates, steps, reduction, how)
    twice = log_decay(np.tile(delta.sum(2).T, (2, 1)), rates, np.tile(steps, (2, 1)), reduction, how)
    assert np.allclose(once, twice, rtol=1e-12)


def test_log_mean_exp_below_the_smallest_float() -> None:
    assert log_mean_exp(np.array([-1e4, -1e4 - 1]), axis=0) == pytest.approx(-1e4 + math.log((1 + math.exp(-1)) / 2))
