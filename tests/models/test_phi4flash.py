"""Phi-4-mini-flash: its config, and the memory its second half shares."""

from __future__ import annotations

import math
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

import longmamba_mlx as lm
from longmamba_mlx.errors import ConfigError
from longmamba_mlx.models import FAMILIES
from longmamba_mlx.models.config.parse import parse_config
from longmamba_mlx.models.loading import load_model
from longmamba_mlx.models.quantisation import step_layers
from longmamba_mlx.models.state import FIRST
from tests.parity import comparing

CONFIG = {
    "model_type": "phi4flash", "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 12, "intermediate_size": 24,
    "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 16,
}  # fmt: skip
PER_LAYER = [None, 16, None, 16, None, 16, *[None] * 6]


def test_the_second_half_is_one_layer() -> None:
    config = parse_config(CONFIG)
    assert config.parts.layers == ("mamba", "windowed") * 3 + ("both",) and config.n_layer == 7
    assert (config.d_inner, config.units, config.dt_rank, config.parts.attends.own_window) == (64, 64, 2, 16)
    model = FAMILIES["phi4flash"](config)
    mixers = [type(stage.attn).__name__ for stage in model.layers[6].stages]
    assert mixers == ["MemoryMixer", *["PairedAttention", "GatedMemory"] * 2, "PairedAttention"]
    assert [model.has_scan(index) for index in range(7)] == [True, False] * 3 + [True]


def test_the_window_in_either_dialect() -> None:
    assert parse_config(CONFIG | {"sliding_window": PER_LAYER}) == parse_config(CONFIG)
    assert parse_config(CONFIG | {"sliding_window": None}).parts.layers[1] == "attention"
    assert parse_config(CONFIG | {"sliding_window": [None] * 12}).parts.layers[1] == "attention"


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ({"num_hidden_layers": 10}, "num_hidden_layers"),
        ({"num_attention_heads": 5}, "num_attention_heads"),
        ({"num_attention_heads": 3}, "num_attention_heads"),
        ({"num_key_value_heads": 1}, "num_key_value_heads"),
        ({"mb_per_layer": 4}, "mb_per_layer"),
        ({"lm_head_bias": True}, "lm_head_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"sliding_window": 0}, "sliding_window"),
        ({"sliding_window": [16] * 12}, "sliding_window"),
        ({"sliding_window": PER_LAYER[1:]}, "sliding_window"),
        ({"sliding_window": [None, 16, None, 8, *PER_LAYER[4:]]}, "sliding_window"),
    ],
)
def test_wrong_configs_name_the_key(raw: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=f"'{key}'"):
        parse_config(CONFIG | raw)


def test_one_set_of_keys_and_values_serves_the_second_half(tmp_path: Path) -> None:
    folder = comparing.fixture("phi4flash").write_folder(tmp_path / "model")
    state = load_model(folder).model.initial_state()
    assert state.own_windows == {1: 30, 3: 30} and state.window is None
    assert state.nbytes_per_token == 2 * 32 * 4  # one layer's, of the eight
    assert set(state.layers[4].arrays()) == {"conv", "ssm", "keys", "values"}
    bounded = load_model(folder, attention_window=20).model.initial_state()
    assert (bounded.window, bounded.nbytes_per_token) == (20, 0)
    assert bounded.shapes(1000)["layers.4.keys"][2] == FIRST + 20 and bounded.shapes(1000)["layers.1.keys"][2] == 30


def test_the_state_does_not_need_the_layers_after_its_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else MLX would compute them for every chunk of a document, and not for its last token alone."""
    monkeypatch.setenv("LONGMAMBA_KERNEL", "reference")
    model, ids = FAMILIES["phi4flash"](parse_config(CONFIG)), mx.array([[1, 2, 3, 4]])
    mx.random.seed(0)
    model.apply(lambda array: mx.random.normal(array.shape) * 0.1)
    hidden, state = model(ids)
    for stage in model.layers[-1].stages[2:]:
        stage.apply(lambda array: array * math.nan)
    broken, same = model(ids)
    assert mx.isnan(broken).all() and not mx.isnan(hidden).any()
    for name, array in state.arrays().items():
        assert mx.array_equal(array, same.arrays()[name]), name


@pytest.mark.parametrize("kernel", ["auto", "reference"])
@pytest.mark.parametrize("layer", [0, 4])
def test_a_filtered_token_changes_nothing(layer: int, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGMAMBA_KERNEL", kernel)
    model = comparing.model("phi4flash", kernel)
    hidden = model.embed(mx.array(comparing.fixture("phi4flash").ids[:50])[None])
    _, state = model.layer(layer, hidden[:, :20], model.initial_state().layers[layer])
    closed = mx.full((model.config.units,), 1e6)
    _, after, kept = model.layer(layer, hidden[:, 20:], state, closed, return_kept=True)
    assert np.array_equal(np.array(after.ssm), np.array(state.ssm)) and not np.array(kept).any()


def test_values_of_a_pair_one_by_one_or_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one on a GPU, whose kernel wants values as wide as keys."""
    from longmamba_mlx.models.families import phi4flash

    model, ids = comparing.model("phi4flash"), mx.array(comparing.fixture("phi4flash").ids[:50])[None]
    together = np.array(model(ids)[0])
    monkeypatch.setattr(phi4flash, "keeps_scores", lambda width: True)
    assert np.abs(np.array(model(ids)[0]) - together).max() <= 1e-5 * np.abs(together).max()


def test_a_converted_folder_can_be_converted_again(tmp_path: Path) -> None:
    """Its layers have other names than the publisher's."""
    stored = comparing.fixture("phi4flash")
    once = lm.convert(stored.write_folder(tmp_path / "source"), tmp_path / "once")
    again = load_model(lm.convert(once, tmp_path / "again")).model
    logits = np.array(again.head(again(mx.array(stored.ids[:100])[None])[0])[0])
    assert stored.compare(logits, filtered=False).exact


def test_what_decides_step_sizes_stays_at_eight_bits() -> None:
    """x_proj and dt_proj of the Mamba layers, and no in_proj of a memory unit."""
    paths = step_layers(FAMILIES["phi4flash"](parse_config(CONFIG)))
    assert len(paths) == 8 and {path.rsplit(".", 1)[-1] for path in paths} == {"x_proj", "dt_proj"}


def test_small_numbers_of_attention_stay_float32(tmp_path: Path) -> None:
    stored = comparing.fixture("phi4flash")
    folder = lm.convert(stored.write_folder(tmp_path / "source"), tmp_path / "mlx", dtype="bfloat16")
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    exact = {name for name, array in weights.items() if array.dtype == mx.float32}
    inner = "model.layers.1.attn.inner_cross_attn"
    assert {f"{inner}.lambda_q1", f"{inner}.subln.weight", "model.layers.4.stages.0.attn.A_log"} <= exact
    assert weights["model.layers.1.attn.Wqkv.weight"].dtype == mx.bfloat16
