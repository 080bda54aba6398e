"""config.json of the hybrid families: both dialects, and everything that can be wrong with one."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longmamba_mlx.errors import ConfigError
from longmamba_mlx.models.config.hybrid import ATTENTION, BOTH, EXPERTS, MAMBA, MLP, RopeConfig
from longmamba_mlx.models.config.parse import parse_config
from tests.models.hybrids import CASES, raw_config
from tests.parity import comparing

every_family = pytest.mark.parametrize("name", CASES)


def without(raw: dict[str, object], *keys: str) -> dict[str, object]:
    return {key: value for key, value in raw.items() if key not in keys}


def test_layers_in_both_dialects() -> None:
    raw = raw_config("granite")
    kinds = (MAMBA, ATTENTION, MAMBA)
    assert parse_config(raw).parts.layers == kinds
    old = without(raw, "layer_types") | {"layers_block_type": ["mamba", "attention", "mamba"]}
    assert parse_config(old) == parse_config(raw)


def test_nemotron_patterns() -> None:
    raw = without(raw_config("nemotron_h-experts"), "layers_block_type")
    for key, value in {
        "hybrid_override_pattern": "ME*M",
        "layer_types": ["mamba", "moe", "attention", "mamba"],
        "layers_block_type": ["linear_attention", "moe", "full_attention", "linear_attention"],
    }.items():
        config = parse_config(raw | {key: value, "num_hidden_layers": 52})
        assert config.parts.layers == (MAMBA, EXPERTS, ATTENTION, MAMBA) and config.n_layer == 4
    assert parse_config(raw | {"hybrid_override_pattern": "M-"}).parts.layers == (MAMBA, MLP)


def test_nemotron_heads_are_never_tied() -> None:
    assert not parse_config(raw_config("nemotron_h", tie_word_embeddings=True)).tie_embeddings


def test_nemotron_steps_are_not_clamped_by_how_training_began() -> None:
    config = parse_config(raw_config("nemotron_h", time_step_min=0.001, time_step_max=0.1))
    assert config.time_step_limit == (0.0, math.inf)
    limited = raw_config("nemotron_h", time_step_limit=[0.01, {"__float__": "Infinity"}])
    assert parse_config(limited).time_step_limit == (0.01, math.inf)


@pytest.mark.parametrize("name", ["falcon_h1", "bamba"])
def test_rotary_positions_in_both_dialects(name: str) -> None:
    raw = without(raw_config(name), "rope_parameters")
    attention = parse_config(raw).parts.attends
    dims = attention.head_dim // (2 if name == "bamba" else 1)
    assert attention.rope == RopeConfig(10_000.0, dims)
    for said in (
        {"rope_theta": 1e11, "rope_scaling": None},
        {"rope_theta": 1e11, "rope_scaling": {"type": "default"}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e11}},
    ):
        assert parse_config(raw | said).parts.attends.rope == RopeConfig(1e11, dims)


@pytest.mark.parametrize("kind", [None, "nope", "rope"])
def test_granite_positions(kind: str | None) -> None:
    config = parse_config(raw_config("granite", position_embedding_type=kind))
    assert (config.parts.attends.rope is None) == (kind != "rope")
    assert config.parts.attends.scale == 0.3


def test_falcon_h1_sizes() -> None:
    raw = raw_config("falcon_h1")
    config = parse_config(raw)
    assert config.parts.layers == (BOTH, BOTH) and config.d_inner == 48 and config.headdim == 6
    assert parse_config(raw | {"mamba_d_head": "auto"}) == config
    wide = parse_config(raw | {"mamba_d_ssm": None, "mamba_d_head": "auto", "mamba_expand": 3})
    assert wide.d_inner == 96 and wide.headdim == 12


def test_training_length() -> None:
    raw = raw_config("granite", max_position_embeddings=131072)
    assert parse_config(raw).training_length == 131072
    assert parse_config(raw | {"longmamba": {"training_length": 500}}).training_length == 500


@every_family
def test_fixtures_say_the_same_as_their_options(name: str) -> None:
    """What transformers saved (every key) and what it was given (few) are one configuration."""
    saved = parse_config(comparing.fixture(CASES[name]).config)
    assert dataclasses.replace(saved, eos_token_ids=()) == parse_config(raw_config(name))


WRONG: list[tuple[str, dict[str, object], str]] = [
    ("granite", {"layer_types": ["mamba"]}, "layer_types"),
    ("granite", {"layer_types": ["mamba", "attention", "conv"]}, "layer_types"),
    ("granite", {"layer_types": ["mamba", "attention", ["mamba"]]}, "layer_types"),
    ("granite", {"layer_types": "mamba"}, "layer_types"),
    ("granite", {"layer_types": []}, "layer_types"),
    ("granite", {"position_embedding_type": "alibi"}, "position_embedding_type"),
    ("granite", {"logits_scaling": 0}, "logits_scaling"),
    ("granite", {"num_local_experts": 1 << 20}, "num_local_experts"),
    ("granite-experts", {"num_experts_per_tok": 6}, "num_experts_per_tok"),
    ("granite-experts", {"num_experts_per_tok": 0}, "num_experts_per_tok"),
    ("granite", {"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling"),
    ("granite", {"rope_parameters": {"rope_type": "yarn"}}, "rope_scaling"),
    ("granite", {"rope_scaling": 3}, "rope_scaling"),
    ("granite", {"rope_parameters": {"rope_theta": math.inf}}, "rope_theta"),
    ("granite", {"num_key_value_heads": 3}, "num_key_value_heads"),
    ("granite", {"num_attention_heads": 0}, "num_attention_heads"),
    ("granite", {"head_dim": 7}, "head_dim"),
    ("granite", {"head_dim": 1 << 17}, "head_dim"),
    ("granite", {"sliding_window": 512}, "sliding_window"),
    ("granite", {"hidden_act": "gelu"}, "hidden_act"),
    ("granite", {"shared_intermediate_size": 1 << 40}, "shared_intermediate_size"),
    ("granite", {"mamba_n_heads": 7}, "num_heads"),
    ("granite", {"mamba_n_groups": 5}, "n_groups"),
    ("falcon_h1", {"ssm_multipliers": [1, 1]}, "ssm_multipliers"),
    ("falcon_h1", {"ssm_multipliers": [1, 1, 1, 1, math.nan]}, "ssm_multipliers"),
    ("falcon_h1", {"mlp_multipliers": "x"}, "mlp_multipliers"),
    ("falcon_h1", {"key_multiplier": math.inf}, "key_multiplier"),
    ("falcon_h1", {"mamba_rms_norm": 1}, "mamba_rms_norm"),
    ("falcon_h1", {"mamba_d_ssm": 50}, "num_heads"),
    ("bamba", {"attn_layer_indices": [3]}, "attn_layer_indices"),
    ("bamba", {"attn_layer_indices": [-1]}, "attn_layer_indices"),
    ("bamba", {"attn_layer_indices": [True]}, "attn_layer_indices"),
    ("bamba", {"attn_layer_indices": 1}, "attn_layer_indices"),
    ("nemotron_h", {"layers_block_type": None, "hybrid_override_pattern": "M-X"}, "hybrid_override_pattern"),
    ("nemotron_h", {"layers_block_type": None, "hybrid_override_pattern": ""}, "hybrid_override_pattern"),
    ("nemotron_h", {"layers_block_type": None, "hybrid_override_pattern": "M" * 1025}, "hybrid_override_pattern"),
    ("nemotron_h", {"layers_block_type": None}, "hybrid_override_pattern"),
    ("nemotron_h", {"mlp_hidden_act": "silu"}, "mlp_hidden_act"),
    ("nemotron_h-experts", {"n_group": 3}, "n_group"),
    ("nemotron_h-experts", {"topk_group": 5}, "topk_group"),
    ("nemotron_h-experts", {"n_routed_experts": None}, "n_routed_experts"),
    ("nemotron_h", {"time_step_limit": [1, 0]}, "time_step_limit"),
]


@pytest.mark.parametrize(("name", "change", "key"), WRONG)
def test_impossible_options_name_their_key(name: str, change: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        parse_config(raw_config(name, **change))


@pytest.mark.parametrize("name", ["falcon_h1", "nemotron_h-experts", "bamba"])
def test_the_sum_of_all_sizes_is_bounded(name: str) -> None:
    wide = {"hidden_size": 1 << 17, "intermediate_size": 1 << 18, "moe_intermediate_size": 1 << 18}
    wide |= {"num_hidden_layers": 64}
    with pytest.raises(ConfigError, match=r"parameters|inner width|head_dim"):
        parse_config(raw_config(name, **wide))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(list(CASES)), data=st.data())
def test_any_change_is_accepted_or_a_config_error(name: str, data: st.DataObject) -> None:
    stored = comparing.fixture(CASES[name]).config
    key = data.draw(st.sampled_from([*sorted(without(stored, "model_type")), "rope_scaling", "head_dim"]))
    try:
        config = parse_config(stored | {key: data.draw(ANYTHING)})
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert 0 < config.n_layer <= 1024 and len(config.parts.layers) == config.n_layer
        json.dumps(config.parts.layers)
