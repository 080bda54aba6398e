"""A scaled copy of a model: in every hybrid family it is the model with other decay rates, and the model stays."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.models.scaled import Factors, scaled
from tests.models.hybrids import CASES, hybrid

IDS = mx.array(np.random.default_rng(0).integers(0, 40, (1, 40)))


def logits(model: object) -> np.ndarray:
    hidden, _ = model(IDS)  # type: ignore[operator]
    return np.array(model.head(hidden))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", CASES)
def test_a_scaled_hybrid_has_other_decay_rates_on_the_same_weights(name: str) -> None:
    model = hybrid(name)
    before = logits(model)
    layers = range(model.config.n_layer)
    rng = np.random.default_rng(1)
    factors: list[Factors | None] = [
        (rng.uniform(2, 30, model.decay_rates(index).shape).astype(np.float32), 1.0) if model.has_scan(index) else None
        for index in layers
    ]
    found = logits(scaled(model, factors))
    np.testing.assert_array_equal(logits(model), before)
    for index, pair in enumerate(factors):
        mixer = model.layers[index].scan
        if mixer is not None and pair is not None:
            mixer.A_log = mixer.A_log + np.log(pair[0]).reshape(mixer.A_log.shape)
    np.testing.assert_allclose(found, logits(model), rtol=1e-4, atol=1e-4 * np.abs(before).max())
    assert np.abs(found - before).max() > 1e-3 * np.abs(before).max()


@pytest.mark.parametrize("name", CASES)
def test_b_halved_halves_the_state(name: str) -> None:
    """B halved alone: the state is half as large."""
    model = hybrid(name)
    factors: list[Factors | None] = [
        (np.float32(1.0).reshape(()), 0.5) if model.has_scan(index) else None for index in range(model.config.n_layer)
    ]
    first = next(index for index in range(model.config.n_layer) if model.has_scan(index))
    hidden = model.embed(IDS)
    states = model.initial_state().layers
    for index in range(first):
        hidden, _ = model.layer(index, hidden, states[index])
    _, plain = model.layer(first, hidden, states[first])
    _, half = scaled(model, factors).layer(first, hidden, states[first])
    np.testing.assert_allclose(np.array(half.ssm), 0.5 * np.array(plain.ssm), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(np.array(half.conv), np.array(plain.conv))
