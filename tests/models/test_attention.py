"""Attention against its definition in float64, on any cut of the queries."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.models import attention
from longmamba_mlx.models.attention import causal_attention, periods
from longmamba_mlx.models.config.hybrid import RopeConfig


def by_definition(queries: np.ndarray, keys: np.ndarray, values: np.ndarray, scale: float) -> np.ndarray:
    shared = queries.shape[1] // keys.shape[1]
    keys, values = (np.repeat(array.astype(np.float64), shared, axis=1) for array in (keys, values))
    scores = queries.astype(np.float64) @ keys.swapaxes(-1, -2) * scale
    length, seen = scores.shape[-2:]
    later = np.arange(seen) > (np.arange(length) + seen - length)[:, None]
    weights = np.exp(np.where(later, -np.inf, scores) - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ values


@pytest.mark.parametrize(("length", "seen"), [(1, 1), (1, 40), (7, 7), (30, 41), (64, 300)])
@pytest.mark.parametrize("budget", [1 << 26, 5000, 1])
def test_causal_attention(length: int, seen: int, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "SCORES", budget)
    rng = np.random.default_rng(length)
    queries = rng.standard_normal((2, 4, length, 8)).astype(np.float32)
    keys, values = rng.standard_normal((2, 2, 2, seen, 8)).astype(np.float32)
    got = np.array(causal_attention(mx.array(queries), mx.array(keys), mx.array(values), 0.3))
    assert got.shape == queries.shape
    assert np.abs(got - by_definition(queries, keys, values, 0.3)).max() < 1e-5


@pytest.mark.parametrize("theta", [1e4, 1e11])
def test_periods(theta: float) -> None:
    found = np.array(periods(RopeConfig(theta, 64)))
    assert found.shape == (32,) and found.dtype == np.float32 and found[0] == 1
    assert np.allclose(found, theta ** (np.arange(32) / 32), rtol=1e-5)
