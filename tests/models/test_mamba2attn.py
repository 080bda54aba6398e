"""mamba_ssm's Mamba-2 with attention in some layers: its config and its state."""

from __future__ import annotations

import mlx.core as mx
import pytest

from longmamba_mlx.errors import ConfigError
from longmamba_mlx.models.config.parse import parse_config
from longmamba_mlx.models.state import ModelState
from tests.parity import comparing

ATTENTION = {"causal": True, "num_heads": 4, "head_dim": 12}
CONFIG = {
    "d_model": 32, "n_layer": 3, "vocab_size": 40, "attn_layer_idx": [1], "attn_cfg": ATTENTION,
    "ssm_cfg": {"layer": "Mamba2", "headdim": 8},
}  # fmt: skip


def test_layers_and_attention_come_from_the_file() -> None:
    config = parse_config(CONFIG)
    assert config.model_type == "mamba2" and config.parts.layers == ("mamba", "attention", "mamba")
    attention = config.parts.attends
    assert (attention.n_heads, attention.n_kv_heads, attention.head_dim, attention.conv) == (4, 4, 12, 0)
    assert attention.bias and attention.rope is None
    assert parse_config(CONFIG | {"attn_layer_idx": []}).hybrid is None


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ({"attn_layer_idx": [3]}, "attn_layer_idx"),
        ({"attn_layer_idx": "1"}, "attn_layer_idx"),
        ({"ssm_cfg": {"layer": "Mamba1"}}, "attn_layer_idx"),
        ({"attn_cfg": ATTENTION | {"causal": False}}, "attn_cfg.causal"),
        ({"attn_cfg": ATTENTION | {"num_heads_kv": 3}}, "attn_cfg.num_heads_kv"),
        ({"attn_cfg": ATTENTION | {"mlp_dim": 8}}, "attn_cfg.mlp_dim"),
        ({"attn_cfg": ATTENTION | {"rotary_emb_dim": 13}}, "attn_cfg.rotary_emb_dim"),
        ({"attn_cfg": ATTENTION | {"out_proj_bias": False}}, "attn_cfg.out_proj_bias"),
    ],
)
def test_wrong_configs_name_the_key(raw: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=f"'{key}'"):
        parse_config(CONFIG | raw)


@pytest.mark.parametrize("name", ["mamba2attn", "mamba2attn-biases-untied"])
def test_the_state_survives_its_file_names(name: str) -> None:
    model = comparing.model(name)
    ids = mx.array(comparing.fixture(name).ids[:40])[None]
    _, state = model(ids[:, :30])
    again = ModelState.from_arrays(state.arrays(), 30, n_layer=model.config.n_layer)
    expected, got = model(ids[:, 30:], state)[0], model(ids[:, 30:], again)[0]
    assert mx.array_equal(expected, got)
