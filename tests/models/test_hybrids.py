"""Hybrid models: what the method and the reading rely on, in every family. Numbers: tests/parity."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.models import LanguageModel, ModelState
from longmamba_mlx.models.numpy_layers import use_numpy_layers
from tests.models.hybrids import CASES, hybrid
from tests.models.samples import random_ids

every_family = pytest.mark.parametrize("name", CASES)


def thresholds(model: LanguageModel, seed: int = 2) -> list[mx.array | None]:
    """For each layer with a scan thresholds that filter some units' tokens."""
    rng = np.random.default_rng(seed)
    rows: list[mx.array | None] = []
    for index in range(model.config.n_layer):
        row = (rng.standard_normal(model.config.units) - 3).astype(np.float32)
        row[rng.random(model.config.units) < 0.3] = -np.inf
        rows.append(mx.array(row) if model.has_scan(index) else None)
    return rows


def logits(model: LanguageModel, ids: mx.array, chunk: int, rows=None) -> tuple[np.ndarray, ModelState]:
    state, parts = None, []
    for start in range(0, ids.shape[1], chunk):
        hidden, state = model(ids[:, start : start + chunk], state, rows)
        parts.append(np.array(model.head(hidden)))
    assert state is not None
    return np.concatenate(parts, axis=1), state


def apart(value: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(value - expected).max() / max(1e-3, np.abs(expected).max()))


@every_family
def test_layers_without_a_scan_say_so(name: str) -> None:
    model = hybrid(name)
    hidden = model.embed(random_ids(6, batch=2))
    state = model.initial_state(2)
    scans = [model.has_scan(index) for index in range(model.config.n_layer)]
    assert any(scans) and (all(scans) == (name in ("falcon_h1", "zamba2")))
    for index, scan in enumerate(scans):
        if scan:
            assert model.raw_step(index, hidden, state.layers[index])[0].shape == (2, 6, model.config.units)
            assert model.decay_rates(index).shape[0] == model.config.units
        else:
            with pytest.raises(ValueError, match="no scan"):
                model.raw_step(index, hidden, state.layers[index])
            with pytest.raises(ValueError, match="no scan"):
                model.decay_rates(index)
        free = model.layer(index, hidden, state.layers[index])
        row = mx.full((model.config.units,), 1e9)
        closed = model.layer(index, hidden, state.layers[index], row, return_kept=True)
        assert closed[2].shape == (2, 6) and closed[2].dtype == mx.int32 and not np.array(closed[2]).any()
        assert scan or np.array_equal(np.array(free[0]), np.array(closed[0]))


@every_family
def test_chunks_equal_one_shot_with_the_filter_on(name: str) -> None:
    model = hybrid(name)
    ids, rows = random_ids(40, batch=2), thresholds(model)
    whole, state = logits(model, ids, 40, rows)
    free, _ = logits(model, ids, 40)
    assert apart(free, whole) > 1e-2
    for chunk in (1, 7):
        pieces, piecewise = logits(model, ids, chunk, rows)
        assert apart(pieces, whole) < 1e-4
        for key, array in state.arrays().items():
            assert apart(np.array(piecewise.arrays()[key]), np.array(array)) < 1e-4, key


@every_family
def test_rows_of_a_batch_do_not_meet(name: str) -> None:
    model = hybrid(name)
    ids = random_ids(12, batch=2)
    both, _ = logits(model, ids, 12)
    for row in range(2):
        assert apart(logits(model, ids[row : row + 1], 12)[0][0], both[row]) < 1e-4


@every_family
def test_raw_step_is_what_the_threshold_meets(name: str) -> None:
    model = hybrid(name)
    hidden = model.embed(random_ids(9))
    layer = next(index for index in range(model.config.n_layer) if model.has_scan(index))
    state = model.initial_state().layers[layer]
    _, state = model.layer(layer, hidden[:, :4], state)
    raw, after = model.raw_step(layer, hidden[:, 4:], state)
    values = np.array(raw)
    assert raw.dtype == mx.float32
    _, advanced, kept = model.layer(layer, hidden[:, 4:], state, mx.array(values[0, 2]), return_kept=True)
    np.testing.assert_array_equal(np.array(kept), (values > values[0, 2]).sum(-1))
    assert np.allclose(np.array(after.conv), np.array(advanced.conv), atol=1e-6)
    assert np.array_equal(np.array(after.ssm), np.array(state.ssm))


@every_family
def test_states_are_never_written_to(name: str) -> None:
    """Several continuations of one state, longer and shorter than its spare room: each sees what was there."""
    model = hybrid(name)
    _, state = model(random_ids(10))
    before = {key: np.array(array) for key, array in state.arrays().items()}
    first, _ = model(random_ids(5, seed=5), state)
    for length in (1, 5, 300):
        model(random_ids(length, seed=6), state)[1].evaluate()
    again, _ = model(random_ids(5, seed=5), state)
    assert np.array_equal(np.array(first), np.array(again))
    for key, array in state.arrays().items():
        assert np.array_equal(before[key], np.array(array))


@every_family
def test_sixteen_bit_weights_keep_float32_where_it_matters(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGMAMBA_KERNEL", "reference")
    model = hybrid(name)
    whole, _ = logits(model, random_ids(20), 20)
    model.set_dtype(mx.bfloat16)
    rough, state = logits(model, random_ids(20), 20)
    assert rough.dtype == np.float32
    for key, array in state.arrays().items():
        assert array.dtype == (mx.float32 if key.endswith("ssm") else mx.bfloat16), key
    # A router's rounded scores may choose other experts, which is another model for that token.
    assert np.abs(rough - whole).mean() / np.abs(whole).mean() < (0.3 if model.config.parts.experts else 0.1)


@pytest.mark.parametrize(
    "name", ["falcon_h1", "granite-experts", "nemotron_h", "jamba", "zamba2", "plamo2", "phi4flash"]
)
def test_machines_without_accelerate_compute_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGMAMBA_KERNEL", "reference")
    model = hybrid(name)
    rows = thresholds(model)
    expected, _ = logits(model, random_ids(30), 30, rows)
    monkeypatch.undo()
    use_numpy_layers(model)
    assert apart(logits(model, random_ids(30), 11, rows)[0], expected) < 1e-4


@pytest.mark.parametrize("name", ["granite", "nemotron_h"])
def test_a_new_decay_is_noticed(name: str) -> None:
    """A = -exp(A_log) is kept, but not beyond the A_log it was made from."""
    model = hybrid(name)
    first, _ = logits(model, random_ids(8), 8)
    mixer = model.layers[0].scan
    assert mixer is not None
    assert np.allclose(np.array(mixer.A()), -np.exp(np.array(mixer.A_log)), rtol=1e-6)
    assert mixer.A() is mixer.A()
    model.load_weights(
        [(f"{path}", array * 1.5) for path, array in flat(model) if path.endswith("A_log")], strict=False
    )
    second, _ = logits(model, random_ids(8), 8)
    assert not np.array_equal(first, second)
    assert np.allclose(np.array(mixer.A()), -np.exp(np.array(mixer.A_log)), rtol=1e-6)
    assert not any("._A" in path for path, _ in flat(model))


def flat(model: LanguageModel):
    from mlx.utils import tree_flatten

    return tree_flatten(model.parameters())
