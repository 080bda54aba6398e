"""The float64 oracle against numbers worked out by hand and against the recurrence, unit by unit."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.ops import oracle
from tests.ops.cases import selective_case, ssd_case

LN2 = math.log(2.0)
# softplus(0) = ln 2; with A = -1 a token halves the state, and with B = 1 / ln 2 it writes x.
HALVING = math.exp(-LN2)


def test_two_tokens_by_hand() -> None:
    x, B, C = np.array([[[1.0], [3.0]]]), np.full((1, 2, 1), 1 / LN2), np.array([[[1.0], [10.0]]])
    y, state, kept = oracle.selective_scan(x, np.zeros((1, 2, 1)), np.array([[-1.0]]), B, C, D=np.array([0.5]))
    np.testing.assert_allclose(y.ravel(), [1.0 + 0.5, 10 * (1.0 * HALVING + 3.0) + 1.5], rtol=1e-15)
    np.testing.assert_allclose(state.ravel(), [3.5], rtol=1e-15)
    np.testing.assert_array_equal(kept, [[1, 1]])


def test_a_token_at_the_threshold_is_filtered_and_one_above_is_kept() -> None:
    dt = np.array([[[0.0], [np.nextafter(np.float32(0), np.float32(1))]]])
    x, ones = np.array([[[5.0], [7.0]]]), np.ones((1, 2, 1))
    filtered = {"threshold": np.zeros(1), "initial_state": np.ones((1, 1, 1)), "time_step_limit": (0.1, 0.1)}
    y, state, kept = oracle.selective_scan(x, dt, np.array([[-1.0]]), ones, ones, **filtered)
    np.testing.assert_array_equal(kept, [[0, 1]])
    np.testing.assert_allclose(state.ravel(), [math.exp(-0.1) + 0.7], rtol=1e-15)
    np.testing.assert_allclose(y.ravel(), [1.0, math.exp(-0.1) + 0.7], rtol=1e-15)


@pytest.mark.parametrize("reverse", [False, True])
def test_ssd_is_a_selective_scan_of_each_head(reverse: bool) -> None:
    """Head h of Mamba-2 is Mamba-1 on its rows, with dt, A, D and the thresholds repeated, and its group's B and C."""
    case = ssd_case(2, 19, heads=4, width=3, groups=2, states=5) | {"reverse": reverse}
    y, state, kept = oracle.ssd_scan(**case)
    counts = np.zeros_like(kept)
    for head in range(4):
        rows = {name: case[name][:, :, head] for name in ("x", "z")}
        rows |= {name: case[name][:, :, head // 2] for name in ("B", "C")}
        rows |= {name: mx.repeat(case[name][head : head + 1], 3) for name in ("D", "dt_bias", "threshold")}
        rows |= {"dt": mx.repeat(case["dt"][:, :, head : head + 1], 3, axis=2), "reverse": reverse}
        A = mx.broadcast_to(case["A"][head], (3, 5))
        head_y, head_state, head_kept = oracle.selective_scan(A=A, initial_state=case["initial_state"][:, head], **rows)
        np.testing.assert_allclose(y[:, :, head], head_y, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(state[:, head], head_state, rtol=1e-12, atol=1e-12)
        counts += head_kept // 3
    np.testing.assert_array_equal(kept, counts)


def test_scans_change_no_argument() -> None:
    case = selective_case(1, 5)
    before = {name: np.array(value) for name, value in case.items()}
    oracle.selective_scan(**{name: oracle.as64(value) for name, value in case.items()})
    for name, value in case.items():
        np.testing.assert_array_equal(np.array(value), before[name])


def test_a_convolution_by_hand() -> None:
    y, window = oracle.causal_conv1d(np.array([[[1.0], [2.0]]]), np.array([[10.0, 1.0]]), initial=np.array([[[3.0]]]))
    np.testing.assert_allclose(y.ravel(), [31 / (1 + math.exp(-31)), 12 / (1 + math.exp(-12))], rtol=1e-15)
    np.testing.assert_array_equal(window, [[[2.0]]])


def test_norms_by_hand() -> None:
    y = np.array([[[3.0, 4.0, 6.0, 8.0]]])
    gate = oracle.silu(np.ones(1))[0]
    (normed,) = oracle.gated_rms_norm(y, np.ones_like(y), np.full(4, 2.0), groups=2, eps=0.0, norm_before_gate=True)
    root = math.sqrt(12.5)
    np.testing.assert_allclose(normed.ravel(), 2 * gate * np.array([3, 4, 3, 4]) / root, rtol=1e-15)
    (gated,) = oracle.gated_rms_norm(y, np.ones_like(y), np.ones(4), groups=1, eps=0.0)
    np.testing.assert_allclose(gated.ravel(), y.ravel() / math.sqrt(125 / 4), rtol=1e-15)
    dt, B, C = oracle.dt_b_c_norms(y, (2, 1, 1), 0.0, (np.ones(2), np.full(1, 5.0), np.full(1, -1.0)))
    np.testing.assert_allclose(np.concatenate([dt, B, C], -1).ravel(), [3 / root, 4 / root, 5.0, -1.0], rtol=1e-15)
