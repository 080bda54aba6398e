"""Mamba-3 as a language model: its config, its state, its filter and its calibration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

import longmamba_mlx as lm
from longmamba_mlx.errors import CalibrationError, ConfigError, StateError
from longmamba_mlx.filtering import Calibration, build_plan, collect
from longmamba_mlx.filtering.delta import delta_of
from longmamba_mlx.filtering.policies.curve import Curve
from longmamba_mlx.filtering.policies.document import Document
from longmamba_mlx.filtering.policies.paper import Paper
from longmamba_mlx.models import FAMILIES, LanguageModel, ModelState
from longmamba_mlx.models.config.parse import parse_config
from longmamba_mlx.models.scaled import scaled
from tests.parity import comparing

SSM = {"layer": "Mamba3", "d_state": 16, "headdim": 8}
CONFIG = {"d_model": 32, "n_layer": 3, "vocab_size": 39, "ssm_cfg": SSM}
NAMES = ("mamba3-siso", "mamba3-mimo", "mamba3-siso-norm-groups-mlp", "mamba3-mimo-norm-groups")
each_model = pytest.mark.parametrize("name", NAMES)


def config_with(**options: object) -> dict[str, object]:
    return CONFIG | {"ssm_cfg": SSM | options}


def windows(count: int = 3, length: int = 64) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 39, (count, length)).astype(np.uint32)


def test_sizes_come_from_the_original_file() -> None:
    config = parse_config(config_with(is_mimo=True, ngroups=2, rope_fraction=1.0) | {"d_intermediate": 100})
    assert (config.model_type, config.vocab_size, config.d_inner, config.units) == ("mamba3", 40, 64, 8)
    own = config.turning
    assert (own.mimo, own.rank, own.angles, own.d_ff, own.decay_floor) == (True, 4, 8, 128, 1e-4)
    assert parse_config(CONFIG).turning.rank == 1 and not config.is_mamba1
    assert parse_config(CONFIG | {"model_type": "mamba3"}) == parse_config(CONFIG)


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (config_with(rope_fraction=0.75), "ssm_cfg.rope_fraction"),
        (config_with(headdim=7), "ssm_cfg.headdim"),
        (config_with(d_state=15), "ssm_cfg.d_state"),
        (config_with(d_state=2), "ssm_cfg.d_state"),
        (config_with(is_mimo=1), "ssm_cfg.is_mimo"),
        (config_with(is_mimo=True, mimo_rank=65), "ssm_cfg.mimo_rank"),
        (config_with(ngroups=3), "n_groups"),
        (config_with(A_floor=-1), "ssm_cfg.A_floor"),
        (CONFIG | {"attn_layer_idx": [1]}, "attn_layer_idx"),
        (CONFIG | {"rms_norm": False}, "rms_norm"),
        (CONFIG | {"d_intermediate": -1}, "d_intermediate"),
    ],
)
def test_wrong_configs_name_the_key(raw: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=f"'{key}'"):
        parse_config(raw)


def test_a_rank_without_mimo_changes_nothing() -> None:
    assert parse_config(config_with(mimo_rank=4)) == parse_config(CONFIG)


@each_model
def test_deleting_filtered_tokens_by_hand_gives_the_same_state(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One threshold that all heads agree on, in the first layer: its state is that of the kept tokens alone."""
    monkeypatch.setenv("LONGMAMBA_KERNEL", "reference")
    model = comparing.model(name, "reference")
    ids = mx.array(comparing.fixture(name).ids[:120])[None]
    raw, _ = model.raw_step(0, model.embed(ids), model.initial_state().layers[0])
    step = np.array(raw)[0]
    # The kept tokens are those that the first head keeps; the thresholds of the others are let follow it.
    head = step[:, 0]
    kept = np.flatnonzero(head > np.median(head))
    state = model.initial_state().layers[0]
    _, filtered = model.layer(0, model.embed(ids), state, mx.full((step.shape[1],), float(np.median(head))))
    _, deleted = model.layer(0, model.embed(ids[:, mx.array(kept)]), state)
    for part in ("ssm", "angle", "last_k", "last_v"):
        ours, theirs = (np.array(getattr(after, part))[:, 0] for after in (filtered, deleted))
        assert np.array_equal(ours, theirs), part


@each_model
def test_the_state_survives_its_file_names(name: str) -> None:
    model = comparing.model(name)
    _, state = model(mx.array(comparing.fixture(name).ids[:30])[None])
    arrays = state.arrays()
    assert set(arrays) >= {"layers.0.angle", "layers.0.last_k", "layers.0.last_v", "layers.0.ssm"}
    again = ModelState.from_arrays(arrays, 30)
    assert again.tokens == 30 and again.arrays().keys() == arrays.keys() and again.is_finite()
    del arrays["layers.0.angle"]
    with pytest.raises(StateError):
        ModelState.from_arrays(arrays, 30)


def calibrated(model: LanguageModel) -> Calibration:
    return collect(model, windows(), clamps=(0.05,))


@each_model
def test_global_heads_are_those_whose_own_decay_is_slow(name: str) -> None:
    """sum |A_t| Delta_t over each window, which no fixed rate times the sum of Delta would give."""
    model = comparing.model(name)
    calibration = calibrated(model)
    hidden = [model.embed(mx.array(window[None])) for window in windows()]
    for index, layer in enumerate(calibration.layers):
        state = model.initial_state().layers[index]
        decays = []
        for number, chunk in enumerate(hidden):
            delta = delta_of(np.array(model.raw_step(index, chunk, state)[0])[0])
            rates = np.array(model.token_rates(index, chunk))[0].astype(np.float64)
            assert rates.min() >= model.config.turning.decay_floor and rates.std() > 0.1
            decays.append((rates * delta).sum(axis=0))
            np.testing.assert_allclose(layer.budgets[number], delta.sum(axis=0), rtol=1e-5)
            hidden[number] = model.layer(index, chunk, state)[0]
        np.testing.assert_allclose(layer.step_mean, -np.array(decays), rtol=1e-5)
        by_mean = layer.rates[:, 0] * layer.budgets.sum(axis=0)
        np.testing.assert_allclose(by_mean, np.sum(decays, axis=0), rtol=1e-5)


@pytest.mark.parametrize("policy", [Document, Curve, Paper])
def test_every_rule_chooses_by_the_real_decay(policy: type) -> None:
    model = comparing.model("mamba3-siso")
    calibration = calibrated(model)
    decay = np.exp(np.stack([layer.step_mean.mean(axis=0) for layer in calibration.layers]))
    theta = float(np.exp(np.log(decay).mean()))
    options = {Document: {"combine": "pooled"}, Curve: {"clamp": 0.0}, Paper: {"clamp": 0.05}}
    plan = build_plan(calibration, policy(theta=theta, **options[policy]), 4096)
    chosen = np.stack([layer.is_global for layer in plan.layers])
    assert 0 < chosen.sum() < chosen.size
    if policy is not Paper:  # whose decays are those of clamped steps
        np.testing.assert_array_equal(chosen, decay > theta)


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    calibration = calibrated(comparing.model("mamba3-mimo"))
    calibration.save(tmp_path / "c.safetensors")
    again = Calibration.load(tmp_path / "c.safetensors", fingerprint="", quantisation="none")
    for layer, known in zip(again.layers, calibration.layers, strict=True):
        np.testing.assert_array_equal(layer.step_mean, known.step_mean)
        np.testing.assert_array_equal(layer.tables[0].step_mean, known.tables[0].step_mean)


def converted(tmp_path: Path, name: str) -> Path:
    """A fixture's checkpoint, converted, with a tokenizer of one letter to a token."""
    source = comparing.fixture(name).write_folder(tmp_path / "source")
    letters = {chr(0x4E00 + index): index for index in range(40)}
    backend = Tokenizer(models.WordLevel(letters, unk_token=chr(0x4E00)))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.save(str(tmp_path / "letters.json"))
    return lm.convert(source, tmp_path / "mlx", tokenizer=tmp_path / "letters.json")


@pytest.mark.parametrize("mode", ["document", "curve", "paper", "decimamba", "off"])
def test_a_converted_model_reads_and_reopens_a_long_text(mode: str, tmp_path: Path) -> None:
    model = lm.load(converted(tmp_path, "mamba3-siso"), filter=mode)
    letters = "".join(chr(0x4E00 + index) for index in np.random.default_rng(0).integers(0, 40, 5000))
    (tmp_path / "book.txt").write_text(letters, encoding="utf-8")
    book = model.read(tmp_path / "book.txt")
    book.save(tmp_path / "book.state")
    again = model.open(tmp_path / "book.state")
    replies = [read.ask(letters[:5], max_tokens=3) for read in (book, again)]
    assert replies[0].text == replies[1].text and replies[0].tokens == replies[1].tokens


def test_families_know_it() -> None:
    assert "mamba3" in FAMILIES


@pytest.mark.parametrize("name", ["mamba3-siso", "mamba3-mimo"])
def test_scaled_decay_and_writes(name: str) -> None:
    """With writes scaled to 0 the state stays empty; with a huge decay it holds the last token alone."""
    model = comparing.model(name)
    ids = mx.array(comparing.fixture(name).ids[:40])[None]
    twin = scaled(model, [(np.array(1.0, np.float32), 0.0)] * model.config.n_layer)
    _, state = twin(ids)
    assert not np.array(state.layers[0].ssm).any() and np.array(model(ids)[1].layers[0].ssm).any()
    faster = scaled(model, [(np.full((model.config.units, 1), 1e9, np.float32), 1.0)] * model.config.n_layer)
    hidden = model.embed(ids)
    _, after = faster.layer(0, hidden, model.initial_state().layers[0])
    _, last = model.layer(0, hidden[:, -1:], model.initial_state().layers[0])
    turned = np.linalg.norm(np.array(after.ssm), axis=-1), np.linalg.norm(np.array(last.ssm), axis=-1)
    np.testing.assert_allclose(*turned, rtol=1e-4, err_msg="all but the last token is forgotten, up to the angle")


@pytest.mark.parametrize("name", ["mamba3-siso", "mamba3-mimo-norm-groups"])
@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_scaled_steps_decay_write_and_turn(name: str, factor: float) -> None:
    """The scaled model is the one whose raw dt have softplus as large; the step sizes are worked out in float64."""
    model = comparing.model(name)
    hidden = model.embed(mx.array(comparing.fixture(name).ids[:40])[None])
    twin = scaled(model, [(np.array(factor, np.float32), factor)] * model.config.n_layer)
    mixer, block = model.layers[0].mixer, model.layers[0]
    before = block.initial(1)
    got = twin.layer(0, hidden, before)
    raw = np.array(mixer.raw(block.scan_input(hidden, mixer), before)[0]).astype(np.float64)
    dt = factor * np.logaddexp(0, raw)
    wanted = (np.log(np.expm1(dt)) - np.array(mixer.dt_bias)).astype(np.float32)
    split = mixer._split

    def changed(given: mx.array) -> list[mx.array]:
        parts = split(given)
        return [*parts[:4], mx.array(wanted), *parts[5:]]

    object.__setattr__(mixer, "_split", changed)
    try:
        expected = model.layer(0, hidden, before)
    finally:
        object.__delattr__(mixer, "_split")
    np.testing.assert_allclose(np.array(got[0]), np.array(expected[0]), atol=2e-5)
    np.testing.assert_allclose(np.array(got[1].ssm), np.array(expected[1].ssm), atol=2e-5)
    apart = np.array(got[1].angle - expected[1].angle).view(np.int32) / 2**32
    usual = np.array(got[1].angle - model.layer(0, hidden, before)[1].angle).view(np.int32) / 2**32
    assert np.abs(apart).max() < 1e-5 < np.abs(usual).max()


def test_a_factor_of_0_leaves_the_state_alone() -> None:
    model = comparing.model("mamba3-mimo")
    hidden = model.embed(mx.array(comparing.fixture("mamba3-mimo").ids[:20])[None])
    start = model.layer(0, hidden, model.initial_state().layers[0])[1]
    twin = scaled(model, [(np.array(0.0, np.float32), 0.0)] * model.config.n_layer)
    after = twin.layer(0, hidden, start)[1]
    np.testing.assert_array_equal(np.array(after.ssm), np.array(start.ssm))
    np.testing.assert_array_equal(np.array(after.angle), np.array(start.angle))


def test_curve_chooses_by_the_decay_of_clamped_steps() -> None:
    """sum |A_t| Delta_t with the largest 10 % of all steps at the smallest of them."""
    model, clamp = comparing.model("mamba3-siso"), 0.1
    calibration = collect(model, windows(2, 40), clamps=(), knots=80)  # every rank is a knot
    hidden = [model.embed(mx.array(window[None])) for window in windows(2, 40)]
    expected, by_mean = [], []
    for index, layer in enumerate(calibration.layers):
        state = model.initial_state().layers[index]
        raw = np.concatenate([np.array(model.raw_step(index, chunk, state)[0])[0] for chunk in hidden])
        rates = np.concatenate([np.array(model.token_rates(index, chunk))[0] for chunk in hidden]).astype(np.float64)
        delta = delta_of(raw)
        delta = np.minimum(delta, np.sort(delta, axis=0)[::-1][round(clamp * len(raw)) - 1])
        expected.append(-(rates * delta).sum(axis=0) / 2)
        by_mean.append(-layer.rates[:, 0] * delta.sum(axis=0) / 2)
        hidden = [model.layer(index, chunk, state)[0] for chunk in hidden]
    assert np.abs(np.array(expected) / np.array(by_mean) - 1).max() > 0.05, "the mean rate would say something else"
    for theta in np.exp(np.sort(np.ravel(expected))[2:-2:5] + 1e-4):
        plan = build_plan(calibration, Curve(theta=float(theta), clamp=clamp), 4096)
        chosen = np.stack([layer.is_global for layer in plan.layers])
        np.testing.assert_array_equal(chosen, np.array(expected) > np.log(theta))


def test_an_older_calibration_is_refused_where_it_lacks_them(tmp_path: Path) -> None:
    calibration = calibrated(comparing.model("mamba3-siso"))
    old = replace(
        calibration, layers=tuple(replace(layer, knot_rate=None, knot_decay=None) for layer in calibration.layers)
    )
    old.save(tmp_path / "c.safetensors")
    again = Calibration.load(tmp_path / "c.safetensors", fingerprint="", quantisation="none")
    with pytest.raises(CalibrationError, match="does not say how"):
        build_plan(again, Curve(clamp=0.05), 4096)
    assert build_plan(again, Curve(clamp=0.0), 4096).layers
