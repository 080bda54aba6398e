"""What filtering does to a model: on the tiny numpy one, and on the real ones, small and random."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.filtering import FilterPlan, build_plan, collect, policy_for
from longmamba_mlx.filtering.delta import delta_of
from longmamba_mlx.models import FAMILIES, LanguageModel
from longmamba_mlx.models.config.parse import ModelConfig
from tests.filtering.samples import TinyConfig, TinyModel, policy, run, scan, with_rates

PURE = ("falcon_mamba", "mamba", "mamba2")

RNG = np.random.default_rng(7)
WINDOWS = RNG.integers(0, 512, (2, 64)).astype(np.uint32)
DOCUMENT = RNG.integers(0, 512, 400).astype(np.uint32)
MODES = ("paper", "curve", "document")


def layer_by_layer(
    model: TinyModel | LanguageModel, plan: FilterPlan, ids: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """Every layer over the whole document before the next: (hidden, the thresholds used)."""
    hidden, used = model.embed(mx.array(ids[None])), []
    for index, state in enumerate(model.initial_state().layers):
        raw, _ = model.raw_step(index, hidden, state)
        used.append(plan.resolve(index, np.array(raw)[0]))
        threshold = None if used[-1] is None else mx.array(used[-1])
        hidden, _ = model.layer(index, hidden, state, threshold)
    return np.array(hidden)[0], used


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model_type", ["mamba2", "mamba"])
def test_short_documents_and_local_models_are_vanilla_to_the_bit(mode: str, model_type: str) -> None:
    model = TinyModel(TinyConfig(model_type=model_type))
    settings = policy(mode, clamp=0.1, theta=0.05)
    short = build_plan(collect(model, WINDOWS, clamps=(0.1,)), settings, 64)
    assert np.array_equal(layer_by_layer(model, short, DOCUMENT[:64])[0], run(model, DOCUMENT[:64])[0])
    local = with_rates(model, 1e4)
    plan = build_plan(collect(local, WINDOWS, clamps=(0.1,)), settings, 400)
    assert np.array_equal(layer_by_layer(local, plan, DOCUMENT)[0], run(local, DOCUMENT)[0])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model_type", ["mamba2", "mamba"])
@pytest.mark.parametrize("chunk", [1, 7, 256])
def test_any_chunking_gives_the_same_state(mode: str, model_type: str, chunk: int) -> None:
    model = TinyModel(TinyConfig(model_type=model_type))
    settings = policy(mode, clamp=0.1, theta=0.0)
    plan = build_plan(collect(model, WINDOWS, clamps=(0.1,)), settings, 400)
    hidden, used = layer_by_layer(model, plan, DOCUMENT)
    fixed = plan.resolved(used)
    thresholds = [fixed.thresholds(index) for index in range(2)]
    assert any(values is not None for values in thresholds)
    chunked, _ = run(model, DOCUMENT, thresholds, chunk)
    assert np.allclose(chunked, hidden, rtol=1e-4, atol=1e-5)
    assert not np.allclose(chunked, run(model, DOCUMENT)[0], rtol=1e-3)


@pytest.mark.parametrize("model_type", ["mamba2", "mamba"])
def test_the_filtered_document_decays_as_one_window_does(model_type: str) -> None:
    model = TinyModel(TinyConfig(model_type=model_type))
    calibration = collect(model, WINDOWS, clamps=())
    plan = build_plan(calibration, policy("document", theta=0.0), 400)
    thresholds = layer_by_layer(model, plan, DOCUMENT)[1][0]
    assert thresholds is not None
    raw = model.raw(0, np.array(model.embed(mx.array(DOCUMENT))))
    for unit in range(4):
        delta = delta_of(raw[:, unit])
        kept = np.where(raw[:, unit] > thresholds[unit], delta, 0.0)
        budget = calibration.layers[0].budgets[:, unit].mean()
        # All occurrences of a token are one value here: they are kept or dropped together.
        nearest = group_mass(raw[:, unit], float(thresholds[unit])) / 2 + 1e-6
        for rate in model.rates[0, unit]:
            # The same for every mode: the product of the steps is that of one window.
            product = float(np.sum(-rate * kept))
            assert abs(product + rate * budget) <= rate * nearest
            assert product == pytest.approx(float(np.log(np.exp(-rate * kept)).sum()), rel=1e-9)


def group_mass(raw: np.ndarray, threshold: float) -> float:
    """The larger of the step-size sums of the two groups of equal values beside a threshold."""
    above, below = raw[raw > threshold].min(), raw[raw <= threshold].max()
    return max(float(delta_of(raw[np.abs(raw - value) < 1e-5]).sum()) for value in (above, below))


def test_an_early_token_is_felt_as_at_the_end_of_one_window() -> None:
    model = with_rates(TinyModel(), 0.05)
    calibration = collect(model, WINDOWS, clamps=())
    plan = build_plan(calibration, policy("document", theta=0.0), 400)
    hidden = model.embed(mx.array(DOCUMENT[None]))
    raw = model.raw(0, np.array(hidden)[0])
    thresholds = plan.resolve(0, raw)
    assert thresholds is not None
    window = 0.05 * calibration.layers[0].budgets.mean(axis=0)
    vanilla = 0.05 * delta_of(raw).sum(axis=0)
    filtered = 0.05 * np.where(raw > thresholds, delta_of(raw), 0.0).sum(axis=0)
    for unit in range(4):
        group = group_mass(raw[:, unit], float(thresholds[unit]))
        assert abs(filtered[unit] - window[unit]) <= 0.05 * group / 2 + 1e-6
        assert abs(filtered[unit] - window[unit]) < abs(vanilla[unit] - window[unit])


def test_dropping_filtered_tokens_from_the_sequence_changes_nothing() -> None:
    model = TinyModel(TinyConfig(model_type="mamba"))
    values = np.array(model.embed(mx.array(DOCUMENT)))
    raw = model.raw(0, values)[:, :1]
    keep = raw[:, 0] > np.median(raw)
    parts = values @ model.to_b[0], values @ model.to_c[0], values @ model.to_x[0][:, :1]
    start = np.zeros((1, 3))
    delta, rates = np.where(keep[:, None], delta_of(raw), 0.0), model.rates[0, :1]
    y, last = scan(delta, rates, *parts, start)
    y_short, last_short = scan(delta_of(raw)[keep], rates, *(part[keep] for part in parts), start)
    assert np.array_equal(last, last_short) and np.array_equal(y[keep], y_short)


# --- the real models ------------------------------------------------------------------------


def real_model(model_type: str, **options: object) -> LanguageModel:
    """Two layers with random weights, decay rates and step sizes of the kind real ones have."""
    sizes = {"dt_rank": 4} if model_type != "mamba2" else {"n_heads": 8, "headdim": 8, "chunk_size": 16}
    config = ModelConfig(
        model_type, vocab_size=512, d_model=32, n_layer=2, d_inner=64, d_state=8, d_conv=4,
        training_length=64, mixer_rms_eps=1e-6 if model_type == "falcon_mamba" else None, **sizes, **options,
    )  # type: ignore[arg-type]  # fmt: skip
    model = FAMILIES[model_type](config)
    rng = np.random.default_rng(3)
    for index in range(2):
        mixer = model.backbone.layers[index].mixer
        shape = mixer.A_log.shape
        mixer.A_log = mx.array(rng.uniform(-4, 1, shape).astype(np.float32))
        step_bias = mx.array(rng.uniform(-5, -1, config.units).astype(np.float32))
        if model_type == "mamba2":
            mixer.dt_bias = step_bias
        else:
            mixer.dt_proj.bias = step_bias
            mixer.dt_proj.weight = mixer.dt_proj.weight * 4
        mixer.conv1d.weight = mx.array(rng.normal(0, 0.5, mixer.conv1d.weight.shape).astype(np.float32))
        mixer.in_proj.weight = mixer.in_proj.weight * 2
    mx.eval(model.parameters())
    return model


def read(
    model: LanguageModel, thresholds: Sequence[np.ndarray | None] | None, chunk: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The document in chunks, as one hands it to the model: (hidden, state arrays)."""
    state, pieces = model.initial_state(), []
    given = None if thresholds is None else [None if t is None else mx.array(t) for t in thresholds]
    for start in range(0, len(DOCUMENT), chunk):
        hidden, state = model(mx.array(DOCUMENT[None, start : start + chunk]), state, given)
        pieces.append(np.array(hidden)[0])
    return np.concatenate(pieces), {name: np.array(array) for name, array in state.arrays().items()}


@pytest.mark.parametrize("model_type", PURE)
def test_real_models_are_vanilla_where_nothing_is_filtered(model_type: str) -> None:
    model = real_model(model_type)
    calibration = collect(model, WINDOWS)
    plain, state = read(model, None, 400)
    open_thresholds = [np.full(model.config.units, -np.inf, np.float32)] * 2
    same, same_state = read(model, open_thresholds, 400)
    assert np.array_equal(plain, same) and all(np.array_equal(state[name], same_state[name]) for name in state)
    off = build_plan(calibration, policy_for(model.config, "off"), 400)
    assert np.array_equal(layer_by_layer(model, off, DOCUMENT)[0], plain)


@pytest.mark.parametrize("model_type", PURE)
@pytest.mark.parametrize("mode", MODES)
def test_real_models_give_one_state_for_every_chunking(model_type: str, mode: str) -> None:
    model = real_model(model_type)
    plan = build_plan(collect(model, WINDOWS, clamps=(0.1,)), policy(mode, theta=0.0, clamp=0.1), 400)
    hidden, used = layer_by_layer(model, plan, DOCUMENT)
    whole, state = read(model, used, 400)
    assert np.allclose(whole, hidden, rtol=1e-4, atol=1e-5)
    assert not np.allclose(whole, read(model, None, 400)[0], rtol=1e-3, atol=1e-4)
    for chunk in (7, 256):
        pieces, after = read(model, used, chunk)
        assert np.allclose(pieces, whole, rtol=1e-4, atol=1e-4)
        assert all(np.allclose(after[name], state[name], rtol=1e-4, atol=1e-4) for name in state)


@pytest.mark.parametrize("model_type", PURE)
def test_a_filtered_token_leaves_the_real_state_untouched(model_type: str) -> None:
    model = real_model(model_type)
    _, before = model(mx.array(DOCUMENT[None, :20]))
    closed = mx.full((model.config.units,), math.inf, dtype=mx.float32)
    token = model.embed(mx.array(DOCUMENT[None, 20:21]))
    _, after = model.layer(0, token, before.layers[0], closed)
    assert mx.array_equal(after.ssm, before.layers[0].ssm)
    assert not mx.array_equal(after.conv, before.layers[0].conv)


@pytest.mark.parametrize("model_type", ["mamba2", "mamba"])
def test_the_clip_does_not_bring_a_filtered_token_back(model_type: str) -> None:
    model = real_model(model_type, time_step_limit=(0.001, 0.1))
    calibration = collect(model, WINDOWS, clamps=())
    assert calibration.time_step_limit == (0.001, 0.1)
    assert (calibration.layers[0].budgets >= 0.001 * 64 * (1 - 1e-6)).all()
    _, before = model(mx.array(DOCUMENT[None, :20]))
    closed = mx.full((model.config.units,), math.inf, dtype=mx.float32)
    _, after = model.layer(0, model.embed(mx.array(DOCUMENT[None, 20:21])), before.layers[0], closed)
    assert mx.array_equal(after.ssm, before.layers[0].ssm)


@pytest.mark.parametrize("model_type", PURE)
def test_the_real_models_kept_step_sizes_meet_the_budget(model_type: str) -> None:
    model = real_model(model_type)
    calibration = collect(model, WINDOWS, clamps=())
    plan = build_plan(calibration, policy("document", theta=0.0), 400)
    raw = np.array(model.raw_step(0, model.embed(mx.array(DOCUMENT[None])), model.initial_state().layers[0])[0])[0]
    thresholds = plan.resolve(0, raw)
    assert thresholds is not None and np.isfinite(thresholds).mean() > 0.9
    kept = np.where(raw > thresholds, delta_of(raw), 0.0).sum(axis=0)
    budgets = calibration.layers[0].budgets.mean(axis=0)
    for unit in np.flatnonzero(np.isfinite(thresholds)):
        assert abs(kept[unit] - budgets[unit]) <= group_mass(raw[:, unit], float(thresholds[unit])) / 2 + 1e-6
