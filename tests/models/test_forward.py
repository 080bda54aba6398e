"""Whole models against the float64 oracle, filter off and on, in every way of cutting the text up."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.models import LanguageModel, ModelState
from longmamba_mlx.models.numpy_blocks import NumpyBlock
from longmamba_mlx.models.numpy_layers import use_numpy_layers
from longmamba_mlx.ops import backend
from longmamba_mlx.ops.cpu import blas, numba_ops, numpy_ops
from tests.models import oracles
from tests.models.samples import CONFIGS, random_ids, random_model, random_thresholds, weights64

every_model = pytest.mark.parametrize("name", CONFIGS)
every_way = pytest.mark.parametrize("way", ["mlx", "reference", "numpy", "compiled"])
both_numpy_ways = pytest.mark.parametrize("way", ["numpy", "compiled"])


def build(name: str, way: str, monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    """The model run by plain MLX (ops in NumPy on Linux), by the specification, or by whole NumPy layers, as narrow and
    (compiled) as wide ones run."""
    model = random_model(name)
    if way == "reference":
        monkeypatch.setenv("LONGMAMBA_KERNEL", "reference")
    if way in ("numpy", "compiled"):
        fast = {"numpy": numpy_ops, "compiled": numba_ops}[way]
        monkeypatch.setattr(backend, "cpu_ops", lambda *sizes: fast)
        monkeypatch.setattr(blas, "has_one_thread", lambda: True)
        use_numpy_layers(model)
        assert all(isinstance(block, NumpyBlock) for block in model.backbone.layers)
    return model


def logits(model: LanguageModel, ids: mx.array, chunk: int, thresholds=None) -> tuple[np.ndarray, ModelState]:
    state, parts = None, []
    for start in range(0, ids.shape[1], chunk):
        hidden, state = model(ids[:, start : start + chunk], state, thresholds)
        parts.append(np.array(model.head(hidden)))
    assert state is not None
    return np.concatenate(parts, axis=1), state


def relative(value: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(value - expected).max() / np.abs(expected).max())


@every_way
@every_model
@pytest.mark.parametrize("filtered", [False, True], ids=["free", "filtered"])
def test_logits_equal_the_float64_oracle(name: str, way: str, filtered: bool, monkeypatch) -> None:
    model = build(name, way, monkeypatch)
    ids = random_ids(70, batch=2)
    thresholds = random_thresholds(model) if filtered else None
    got, _ = logits(model, ids, 70, thresholds)
    rows = None if thresholds is None else [None if row is None else np.array(row) for row in thresholds]
    for row in range(2):
        expected = oracles.forward(model.config, weights64(model), np.array(ids)[row], rows)
        assert relative(got[row], expected) < 1e-5


@both_numpy_ways
@every_model
@pytest.mark.parametrize("filtered", [False, True], ids=["free", "filtered"])
@pytest.mark.parametrize("chunk", [1, 7, 256])
def test_chunks_equal_one_shot(name: str, filtered: bool, chunk: int, way: str, monkeypatch) -> None:
    model = build(name, way, monkeypatch)
    ids = random_ids(300 if chunk == 256 else 40)
    thresholds = random_thresholds(model) if filtered else None
    whole, state = logits(model, ids, ids.shape[1], thresholds)
    pieces, piecewise = logits(model, ids, chunk, thresholds)
    assert relative(pieces, whole) < 1e-5
    assert piecewise.tokens == state.tokens == ids.shape[1]
    for key, array in state.arrays().items():
        assert relative(np.array(piecewise.arrays()[key]), np.array(array)) < 1e-5


@pytest.mark.parametrize("name", ["mamba", "mamba2-groups"])
def test_plain_mlx_chunks_equal_one_shot(name: str, monkeypatch) -> None:
    model = build(name, "reference", monkeypatch)
    thresholds = random_thresholds(model)
    whole, _ = logits(model, random_ids(20), 20, thresholds)
    pieces, _ = logits(model, random_ids(20), 7, thresholds)
    assert relative(pieces, whole) < 1e-5


@every_way
@every_model
def test_raw_step_is_what_the_threshold_meets(name: str, way: str, monkeypatch) -> None:
    """Thresholds equal to the raw steps of one token filter exactly that token, and the windows agree."""
    model = build(name, way, monkeypatch)
    state = model.initial_state(2)
    hidden = model.embed(random_ids(9, batch=2))
    first, after = model.raw_step(0, hidden[:, :5], state.layers[0])
    second, window = model.raw_step(0, hidden[:, 5:], after)
    raw = np.concatenate([np.array(first), np.array(second)], axis=1)
    assert first.dtype == mx.float32 and raw.shape == (2, 9, model.config.units)
    assert np.array_equal(np.array(window.ssm), np.array(state.layers[0].ssm))

    whole = np.array(model.raw_step(0, hidden, state.layers[0])[0])
    assert np.allclose(whole, raw, atol=1e-5)
    threshold = mx.array(whole[1, 3])
    _, advanced, kept = model.layer(0, hidden, state.layers[0], threshold, return_kept=True)
    np.testing.assert_array_equal(np.array(kept), (whole > whole[1, 3]).sum(-1))
    assert np.array(kept)[1, 3] == 0 and kept.dtype == mx.int32
    assert np.allclose(np.array(advanced.conv), np.array(window.conv), atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_short_raw_steps_keep_the_window(name: str, length: int, monkeypatch) -> None:
    for way in ("reference", "numpy"):
        model = build(name, way, monkeypatch)
        state = model.initial_state().layers[0]
        hidden = model.embed(random_ids(6))
        _, state = model.layer(0, hidden[:, :2], state)
        _, expected = model.layer(0, hidden[:, 2 : 2 + length], state)
        _, after = model.raw_step(0, hidden[:, 2 : 2 + length], state)
        assert np.allclose(np.array(after.conv), np.array(expected.conv), atol=1e-6)
        monkeypatch.undo()


@both_numpy_ways
@every_model
def test_single_tokens_count_what_they_keep(name: str, way: str, monkeypatch) -> None:
    model = build(name, way, monkeypatch)
    state, hidden = model.initial_state().layers[1], model.embed(random_ids(12))
    threshold = mx.array(np.median(np.array(model.raw_step(1, hidden, state)[0]), axis=(0, 1)))
    _, _, whole = model.layer(1, hidden, state, threshold, return_kept=True)
    counts = []
    for t in range(12):
        _, state, kept = model.layer(1, hidden[:, t : t + 1], state, threshold, return_kept=True)
        counts.append(kept.item())
    assert counts == whole[0].tolist()
    assert 0 < sum(counts) < 12 * model.config.units


@both_numpy_ways
def test_which_models_take_a_token_in_one_call(way: str, monkeypatch) -> None:
    plain = {name: build(name, way, monkeypatch).layers[0]._token is not None for name in CONFIGS}
    assert plain == {name: way == "compiled" and "falcon" not in name for name in CONFIGS}


@pytest.mark.parametrize("name", [name for name in CONFIGS if "falcon" not in name])
def test_a_token_is_the_same_where_threads_share_the_products(name: str, monkeypatch) -> None:
    model = build(name, "compiled", monkeypatch)
    ids, (_, state) = random_ids(1), model(random_ids(10))
    alone, after = model(ids, state)
    monkeypatch.setattr(blas, "has_one_thread", lambda: False)
    shared, then = model(ids, state)
    assert relative(np.array(shared), np.array(alone)) < 1e-6
    for key, array in after.arrays().items():
        assert relative(np.array(then.arrays()[key]), np.array(array)) < 1e-6


@every_way
def test_kept_counts_without_a_threshold(way: str, monkeypatch) -> None:
    model = build("mamba2", way, monkeypatch)
    state = model.initial_state().layers[0]
    kept = model.layer(0, model.embed(random_ids(3)), state, return_kept=True)[2]
    assert np.array(kept).tolist() == [[6, 6, 6]]


@both_numpy_ways
@every_model
@pytest.mark.parametrize("more", [1, 5])
def test_states_are_never_written_to(name: str, more: int, way: str, monkeypatch) -> None:
    """Two continuations of one state: the second must not see the first."""
    model = build(name, way, monkeypatch)
    _, state = model(random_ids(10))
    before = {key: np.array(array) for key, array in state.arrays().items()}
    first, _ = model(random_ids(more, seed=5), state)
    model(random_ids(more, seed=6), state)
    again, _ = model(random_ids(more, seed=5), state)
    assert np.array_equal(np.array(first), np.array(again))
    for key, array in state.arrays().items():
        assert np.array_equal(before[key], np.array(array))


@every_model
def test_decay_rates(name: str) -> None:
    model = random_model(name)
    rates = model.decay_rates(1)
    expected = np.exp(np.array(model.backbone.layers[1].mixer.A_log).astype(np.float64))
    assert rates.dtype == np.float32 and rates.shape[0] == model.config.units
    assert np.allclose(rates, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["falcon", "mamba2-groups"])
def test_sixteen_bit_weights_keep_float32_where_it_matters(name: str, monkeypatch) -> None:
    monkeypatch.setenv("LONGMAMBA_KERNEL", "reference")
    model = random_model(name)
    whole, _ = logits(model, random_ids(30), 30)
    model.set_dtype(mx.bfloat16)
    rough, state = logits(model, random_ids(30), 30)
    assert rough.dtype == np.float32
    assert all(layer.ssm.dtype == mx.float32 for layer in state.layers)
    assert all(layer.conv.dtype == mx.bfloat16 for layer in state.layers)
    raw, _ = model.raw_step(0, model.embed(random_ids(3)), model.initial_state().layers[0])
    assert raw.dtype == mx.float32
    assert relative(rough, whole) < 0.1


def test_numpy_layers_turn_sixteen_bit_weights_into_float32() -> None:
    model = random_model("mamba2")
    model.set_dtype(mx.float16)
    expected, _ = logits(model, random_ids(12), 12)
    use_numpy_layers(model)
    got, state = logits(model, random_ids(12), 12)
    assert state.layers[0].conv.dtype == mx.float32
    assert relative(got, expected) < 2e-2


def test_numpy_layers_share_the_weights_memory() -> None:
    model = random_model("mamba")
    use_numpy_layers(model)
    block = model.backbone.layers[0]
    mine = block._weights["in_proj.weight"]
    assert np.shares_memory(mine, np.asarray(block.mixer.in_proj.weight))
    names = dict(mlx_names(model))
    assert not any("_weights" in name for name in names)


def mlx_names(model: LanguageModel):
    from mlx.utils import tree_flatten

    return tree_flatten(model.parameters())
