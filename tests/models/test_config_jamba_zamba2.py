"""Jamba's and Zamba2's config.json in every dialect, and hostile ones."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longmamba_mlx.errors import ConfigError
from longmamba_mlx.models.config.hybrid import ATTENTION, BOTH, MAMBA
from longmamba_mlx.models.config.parse import parse_config

JAMBA = {
    "model_type": "jamba", "vocab_size": 65536, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "num_experts": 16,
    "num_experts_per_tok": 2, "expert_layer_period": 2, "expert_layer_offset": 1, "attn_layer_period": 8,
    "attn_layer_offset": 4, "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_dt_rank": 256,
    "mamba_conv_bias": True, "mamba_proj_bias": False, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "hidden_act": "silu", "eos_token_id": 2, "max_position_embeddings": 262144,
}  # fmt: skip
ZAMBA2 = {
    "model_type": "zamba2", "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 8192,
    "num_hidden_layers": 6, "layers_block_type": ["mamba", "mamba", "hybrid", "mamba", "mamba", "hybrid"],
    "num_attention_heads": 32, "num_key_value_heads": 32, "attention_head_dim": 128, "attention_hidden_size": 4096,
    "n_mamba_heads": 64, "mamba_headdim": 64, "mamba_ngroups": 1, "mamba_d_state": 128, "mamba_d_conv": 4,
    "mamba_expand": 2, "num_mem_blocks": 1, "adapter_rank": 128, "use_shared_attention_adapter": True,
    "use_mem_rope": True, "rope_theta": 10000, "use_long_context": False, "time_step_min": 0.001,
    "time_step_limit": None, "rms_norm_eps": 1e-5, "chunk_size": 256, "add_bias_linear": False, "hidden_act": "gelu",
    "max_position_embeddings": 4096, "eos_token_id": 2, "hybrid_layer_ids": [2, 5],
}  # fmt: skip


def test_jamba() -> None:
    config = parse_config(JAMBA)
    parts = config.parts
    assert config.is_mamba1 and config.units == config.d_inner == 8192 and config.dt_rank == 256
    assert [i for i, kind in enumerate(parts.layers) if kind == ATTENTION] == [4, 12, 20, 28]
    assert [i for i, routed in enumerate(parts.routed) if routed] == list(range(1, 32, 2))
    assert parts.attends.rope is None and parts.attends.head_dim == 128 and parts.attends.scale == 128**-0.5
    assert parts.experts is not None and (parts.experts.count, parts.experts.per_token) == (16, 2)
    assert config.training_length == 262144 and config.eos_token_ids == (2,)


def test_jamba_periods_count_from_the_offset() -> None:
    moved = {"expert_layer_period": 4, "expert_layer_offset": 1, "attn_layer_period": 3, "attn_layer_offset": 0}
    parts = parse_config(JAMBA | moved | {"num_hidden_layers": 9}).parts
    assert [i for i, routed in enumerate(parts.routed) if routed] == [1, 5]
    assert [i for i, kind in enumerate(parts.layers) if kind == ATTENTION] == [0, 3, 6]


def test_dense_jamba() -> None:
    config = parse_config(JAMBA | {"num_experts": 1, "num_experts_per_tok": 2, "mamba_dt_rank": "auto"})
    assert config.parts.experts is None and config.parts.routed == () and config.dt_rank == 256
    assert parse_config(JAMBA | {"num_local_experts": 4}).parts.experts.count == 4


def test_zamba2() -> None:
    config = parse_config(ZAMBA2)
    parts = config.parts
    assert not config.is_mamba1 and config.units == 64 and config.headdim == 64 and config.tie_embeddings
    assert parts.layers == (MAMBA, MAMBA, BOTH, MAMBA, MAMBA, BOTH)
    assert parts.attends.head_dim == 128 and parts.attends.scale == 64**-0.5 and parts.attends.rope.theta == 10000.0
    assert parts.shared.blocks == 1 and parts.shared.adapted_attention and parts.shared.activation == "gelu"
    assert config.training_length == 4096


@pytest.mark.parametrize(
    "kinds",
    [["m", "m", "g"] * 2, ["mamba", "mamba", "hybrid"] * 2, ["linear_attention", "linear_attention", "hybrid"] * 2],
)
@pytest.mark.parametrize("key", ["layers_block_type", "layer_types"])
def test_zamba2_layers_in_every_dialect(key: str, kinds: list[str]) -> None:
    raw = {name: value for name, value in ZAMBA2.items() if name != "layers_block_type"}
    assert parse_config(raw | {key: kinds}).parts.layers == (MAMBA, MAMBA, BOTH) * 2


def test_zamba2_without_a_list_of_layers_is_the_usual_one() -> None:
    raw = {name: value for name, value in ZAMBA2.items() if name not in ("layers_block_type", "hybrid_layer_ids")}
    layers = parse_config(raw | {"num_hidden_layers": 54}).parts.layers
    assert [i for i, kind in enumerate(layers) if kind == BOTH] == [6, 12, 18, 24, 30, 36, 42, 47, 51]
    with pytest.raises(ConfigError, match="'layers_block_type' is missing"):
        parse_config(raw)


def test_zamba2_step_limit_of_both_dialects() -> None:
    assert parse_config(ZAMBA2).time_step_limit == (0.0, math.inf)
    newer = {name: value for name, value in ZAMBA2.items() if name != "time_step_limit"}
    assert parse_config(newer).time_step_limit == (0.001, math.inf)
    assert parse_config(newer | {"time_step_min": 0.0}).time_step_limit == (0.0, math.inf)
    assert parse_config(ZAMBA2 | {"time_step_limit": [0.01, 1.0]}).time_step_limit == (0.01, 1.0)


def test_zamba2_long_context_stretches_only_the_older_dialect() -> None:
    longer = ZAMBA2 | {"use_long_context": True}
    assert parse_config(longer).parts.attends.rope.theta == pytest.approx(10000.0 * 8 ** (128 / 126))
    newer = longer | {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    assert parse_config(newer).parts.attends.rope.theta == 5e5
    assert parse_config(longer | {"use_mem_rope": False}).parts.attends.rope is None


ODD = [
    ({"num_experts": 0}, "num_experts"),
    ({"num_experts_per_tok": 17}, "num_experts_per_tok"),
    ({"expert_layer_offset": 2}, "expert_layer_offset"),
    ({"expert_layer_period": 0}, "expert_layer_period"),
    ({"attn_layer_offset": 8}, "attn_layer_offset"),
    ({"attn_layer_offset": -1}, "attn_layer_offset"),
    ({"attn_layer_period": 1 << 70}, "attn_layer_period"),
    ({"mamba_expand": 2.5}, "mamba_expand"),
    ({"mamba_expand": 64, "hidden_size": 1 << 18}, "mamba_expand"),
    ({"mamba_dt_rank": "car"}, "mamba_dt_rank"),
    ({"num_key_value_heads": 5}, "num_key_value_heads"),
    ({"hidden_act": "gelu"}, "hidden_act"),
    ({"num_hidden_layers": 1025}, "num_hidden_layers"),
    ({"hidden_size": 1 << 17, "intermediate_size": 1 << 18, "num_hidden_layers": 1024, "num_experts": 4096}, "num_"),
]
ODD2 = [
    ({"layers_block_type": ["mamba"] * 5}, "num_hidden_layers"),
    ({"layers_block_type": ["mamba", "attention"] * 3}, "layers_block_type"),
    ({"layers_block_type": ["mamba", 7, None] * 2}, "layers_block_type"),
    ({"layers_block_type": "mmmmmm"}, "layers_block_type"),
    ({"layers_block_type": ["mamba"] * 2000}, "layers_block_type"),
    ({"hybrid_layer_ids": [1, 5]}, "hybrid_layer_ids"),
    ({"n_mamba_heads": 48}, "n_mamba_heads"),
    ({"mamba_headdim": 32}, "mamba_headdim"),
    ({"mamba_ngroups": 3}, "mamba_ngroups"),
    ({"mamba_expand": 1e9}, "mamba_expand"),
    ({"mamba_expand": {"__float__": "NaN"}}, "mamba_expand"),
    ({"num_attention_heads": 24}, "num_attention_heads"),
    ({"attention_head_dim": 64}, "attention_head_dim"),
    ({"attention_hidden_size": 2048}, "attention_hidden_size"),
    ({"num_key_value_heads": 16}, "num_key_value_heads"),
    ({"num_mem_blocks": 0}, "num_mem_blocks"),
    ({"num_mem_blocks": True}, "num_mem_blocks"),
    ({"adapter_rank": -1}, "adapter_rank"),
    ({"use_mem_rope": "yes"}, "use_mem_rope"),
    ({"rope_theta": math.nan}, "rope_theta"),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope"),
    ({"time_step_limit": [1.0, 0.5]}, "time_step_limit"),
    ({"hidden_act": "relu"}, "hidden_act"),
    ({"hidden_act": ["gelu"]}, "hidden_act"),
    ({"hidden_size": 1 << 18}, "hidden_size"),
    (
        {"layers_block_type": ["g"] * 1024, "num_hidden_layers": 1024, "hybrid_layer_ids": None,
         "tie_word_embeddings": False},
        "layers_block_type",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("base", "change", "named"), [(JAMBA, *odd) for odd in ODD] + [(ZAMBA2, *odd) for odd in ODD2]
)  # fmt: skip
def test_odd_configs_name_their_key(base: dict, change: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=f"'{named}") as caught:
        parse_config(base | change)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200 and caught.value.hint


@pytest.mark.parametrize("base", [JAMBA, ZAMBA2], ids=["jamba", "zamba2"])
@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "num_hidden_layers"])
def test_missing_sizes_are_named(base: dict, key: str) -> None:
    with pytest.raises(ConfigError, match=f"'{key}' is missing"):
        parse_config({name: value for name, value in base.items() if name != key})


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(base=st.sampled_from([JAMBA, ZAMBA2]), data=st.data())
def test_any_change_is_accepted_or_one_line(base: dict, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from([*base, "head_dim", "rope_parameters", "rope_scaling", "longmamba"]))
    try:
        config = parse_config(base | {key: data.draw(ANYTHING)})
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert len(config.parts.layers) == config.n_layer and 0 < config.units <= 1 << 18
