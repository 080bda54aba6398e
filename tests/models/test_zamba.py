"""Zamba's config, and that its heads and shared block are what the file says."""

from __future__ import annotations

import numpy as np
import pytest

from longmamba_mlx.errors import ConfigError
from longmamba_mlx.models.config.parse import parse_config
from tests.parity import comparing

CONFIG = {"model_type": "zamba", "vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 9, "num_attention_heads": 4}


def test_layers_follow_from_period_and_offset() -> None:
    config = parse_config(CONFIG | {"attn_layer_period": 3, "attn_layer_offset": 1})
    assert [kind == "both" for kind in config.parts.layers] == [
        False,
        False,
        True,
        False,
        True,
        False,
        False,
        True,
        False,
    ]
    assert config.is_mamba1 and config.units == 48 and config.n_groups == 2 and config.dt_rank == 2
    listed = parse_config(CONFIG | {"layers_block_type": ["mamba"] * 8 + ["hybrid"]})
    assert listed.parts.layers.count("both") == 1


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ({"n_mamba_heads": 5}, "n_mamba_heads"),
        ({"num_attention_heads": 5}, "num_attention_heads"),
        ({"attention_head_dim": 7}, "attention_head_dim"),
        ({"hidden_mamba_act": "gelu"}, "hidden_mamba_act"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"layers_block_type": ["mamba"] * 3}, "num_hidden_layers"),
    ],
)
def test_wrong_configs_name_the_key(raw: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=f"'{key}'"):
        parse_config(CONFIG | raw)


def test_one_block_serves_all_hybrid_layers() -> None:
    model = comparing.model("zamba")
    blocks = [layer._block[0] for layer in model.layers if "linear" in layer]
    assert len(blocks) > 1 and all(block is blocks[0] for block in blocks)
    assert model.decay_rates(0).shape == (48, 8) and np.isfinite(model.decay_rates(0)).all()
