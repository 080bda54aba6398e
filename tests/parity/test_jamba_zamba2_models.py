"""Jamba and Zamba2 beyond their logits: how checkpoints may store them, step sizes, states, quantised weights."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from safetensors.numpy import save_file

from longmamba_mlx.errors import ModelError
from longmamba_mlx.models import FAMILIES, LanguageModel, ModelState
from longmamba_mlx.models.config.parse import parse_config
from longmamba_mlx.models.loading import load_model
from tests.parity import comparing

FAMILY = ["jamba-moe", "jamba-dense", "zamba2-1.2b", "zamba2-2.7b", "zamba2-long-untied"]


def ids_of(name: str, length: int, batch: int = 1) -> mx.array:
    """The fixture's text, a different stretch for each row."""
    text = comparing.fixture(name).ids
    return mx.array(np.stack([text[row * 7 : row * 7 + length] for row in range(batch)]))


def logits(model: LanguageModel, ids: mx.array, chunk: int, thresholds: object = None) -> np.ndarray:
    state, parts = None, []
    for start in range(0, ids.shape[1], chunk):
        hidden, state = model(ids[:, start : start + chunk], state, thresholds)
        parts.append(np.array(model.head(hidden)))
    return np.concatenate(parts, axis=1)


def renamed(name: str, tmp_path: Path, change: object) -> Path:
    """The fixture's folder with the tensors that `change` makes of its own."""
    folder = comparing.fixture(name).write_folder(tmp_path / "model")
    save_file(change(dict(comparing.fixture(name).weights)), folder / "model.safetensors")
    return folder


def same_logits(folder: Path, name: str) -> bool:
    ids = ids_of(name, 20)
    return bool(np.array_equal(logits(load_model(folder).model, ids, 20), logits(comparing.model(name), ids, 20)))


@pytest.mark.parametrize("everywhere", [False, True], ids=["last", "every"])
@pytest.mark.parametrize(("name", "users"), [("zamba2-1.2b", [[1, 3, 4]]), ("zamba2-2.7b", [[1, 4], [3]])])
def test_shared_blocks_are_found_under_any_layer_that_uses_them(
    name: str, users: list[list[int]], everywhere: bool, tmp_path: Path
) -> None:
    def change(weights: dict) -> dict:
        for layers in users:
            at = f"model.layers.{layers[0]}.shared_transformer."
            for key in [key for key in weights if key.startswith(at)]:
                array = weights.pop(key)
                for index in layers if everywhere else layers[-1:]:
                    weights[key.replace(at, f"model.layers.{index}.shared_transformer.")] = array.copy()
        return weights

    assert same_logits(renamed(name, tmp_path, change), name)


def test_untied_zamba2_takes_blocks_stored_once(tmp_path: Path) -> None:
    """transformers saves every block of an untied model; a file that has each once means the same for all layers."""
    config = comparing.fixture("zamba2-2.7b").config | {"tie_word_embeddings": False}
    weights = dict(comparing.fixture("zamba2-2.7b").weights)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].copy()
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(weights, tmp_path / "model.safetensors")
    assert same_logits(tmp_path, "zamba2-2.7b")


def test_experts_in_one_array_are_the_same_model(tmp_path: Path) -> None:
    def change(weights: dict) -> dict:
        fused = {key: array for key, array in weights.items() if ".experts." not in key}
        for index in (1, 3):
            at = f"model.layers.{index}.feed_forward.experts."
            gate, up, down = (
                np.stack([weights[f"{at}{e}.{part}_proj.weight"] for e in range(4)]) for part in ("gate", "up", "down")
            )
            fused[at + "gate_up_proj"], fused[at + "down_proj"] = np.concatenate([gate, up], axis=1), down
        return fused

    assert same_logits(renamed("jamba-moe", tmp_path, change), "jamba-moe")


@pytest.mark.parametrize("what", ["missing", "shape", "extra", "far"])
def test_broken_experts_are_one_error(what: str, tmp_path: Path) -> None:
    def change(weights: dict) -> dict:
        key = "model.layers.1.feed_forward.experts.2.up_proj.weight"
        array = weights.pop(key)
        if what == "shape":
            weights[key] = array[:5].copy()
        if what == "extra":
            weights |= {key: array, key.replace("experts.2", "experts.4"): array.copy()}
        if what == "far":
            weights |= {key: array, key.replace("experts.2", "experts.99999999999"): array.copy()}
        return weights

    with pytest.raises(ModelError, match=r"layers\.1\.feed_forward") as caught:
        load_model(renamed("jamba-moe", tmp_path, change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("gone", ["shared_transformer.self_attn.q_proj.weight", "gate_up_proj_adapter_list.1.0.weight"])
def test_a_shared_block_with_gaps_is_one_error(gone: str, tmp_path: Path) -> None:
    def change(weights: dict) -> dict:
        return {key: array for key, array in weights.items() if not key.endswith(gone)}

    with pytest.raises(ModelError, match="lack") as caught:
        load_model(renamed("zamba2-1.2b", tmp_path, change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FAMILY)
def test_every_row_of_a_batch_is_itself(name: str) -> None:
    model, both = comparing.model(name), ids_of(name, 40, batch=2)
    together = logits(model, both, 13)
    for row in range(2):
        assert np.abs(together[row] - logits(model, both[row : row + 1], 13)[0]).max() < 5e-5


@pytest.mark.parametrize("name", FAMILY)
def test_raw_steps_in_pieces_are_what_the_threshold_meets(name: str) -> None:
    """Read piece by piece from the state before, and the filter keeps exactly what lies above."""
    model = comparing.model(name)
    hidden, state = model.embed(ids_of(name, 50)), model.initial_state()
    for index in range(model.config.n_layer):
        if not model.has_scan(index):
            with pytest.raises(ValueError, match="no scan"):
                model.raw_step(index, hidden, state.layers[index])
            hidden, _, kept = model.layer(index, hidden, state.layers[index], mx.zeros(3), return_kept=True)
            assert not np.array(kept).any() and kept.shape == (1, 50)
            continue
        whole = np.array(model.raw_step(index, hidden, state.layers[index])[0])
        before, pieces = state.layers[index], []
        for start in range(0, 50, 17):
            raw, before = model.raw_step(index, hidden[:, start : start + 17], before)
            pieces.append(np.array(raw))
        assert whole.shape == (1, 50, model.config.units) and whole.dtype == np.float32
        assert np.allclose(np.concatenate(pieces, axis=1), whole, atol=2e-5)
        threshold = np.sort(whole[0], axis=0)[[24, 25]].mean(0)
        hidden, _, kept = model.layer(index, hidden, state.layers[index], mx.array(threshold), return_kept=True)
        np.testing.assert_array_equal(np.array(kept)[0], (whole[0] > threshold).sum(-1))


@pytest.mark.parametrize("name", FAMILY)
def test_a_state_goes_to_arrays_and_back(name: str) -> None:
    model, ids = comparing.model(name), ids_of(name, 40)
    _, state = model(ids[:, :30])
    stored = ModelState.from_arrays(dict(state.arrays()), state.tokens, model.config.n_layer)
    first, _ = model(ids[:, 30:], state)
    again, _ = model(ids[:, 30:], stored)
    assert np.array_equal(np.array(first), np.array(again))


@pytest.mark.parametrize("name", FAMILY[1:])  # MLX multiplies 16-bit experts on a GPU only
def test_sixteen_bit_weights_run_with_float32_states(name: str) -> None:
    stored = comparing.fixture(name)
    config = parse_config(stored.config)
    model = FAMILIES[config.model_type](config)
    weights = {key: mx.array(array) for key, array in stored.weights.items()}
    model.load_weights(list(model.sanitize(weights).items()))
    model.set_dtype(mx.bfloat16)
    hidden, state = model(ids_of(name, 30))
    scans = [layer.ssm for layer in state.layers if layer.ssm is not None]
    assert scans and all(scan.dtype == mx.float32 for scan in scans) and hidden.dtype == mx.float32
    got, expected = np.array(model.head(hidden))[0], stored.logits[:30]
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("name", ["jamba-moe", "zamba2-1.2b", "zamba2-2.7b"])
def test_quantised_weights_stay_near(name: str) -> None:
    """At 8 bit, with sizes that a group divides: experts, adapters and shared blocks too."""
    wide = {"hidden_size": 32, "intermediate_size": 64, "adapter_rank": 32, "mamba_dt_rank": 32, "n_mamba_heads": 8}
    raw = {key: value for key, value in comparing.fixture(name).config.items() if not key.startswith("attention_h")}
    config = parse_config(raw | wide | {"mamba_headdim": 8})
    mx.random.seed(3)
    model = FAMILIES[config.model_type](config)
    expected = logits(model, ids_of(name, 30), 30)
    nn.quantize(model, 32, 8)
    left = [path for path, part in model.named_modules() if isinstance(part, nn.Linear)]
    assert not left
    assert np.corrcoef(logits(model, ids_of(name, 30), 30).ravel(), expected.ravel())[0, 1] > 0.98
