"""config.json in all dialects, and everything that can be wrong with one."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib import import_module

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longmamba_mlx.errors import ConfigError
from longmamba_mlx.models import FAMILIES, LanguageModel
from longmamba_mlx.models.config.parse import MODEL_TYPES, ModelConfig, parse_config, read_json
from longmamba_mlx.models.registry import ROWS

MAMBA = {
    "model_type": "mamba",
    "vocab_size": 50280,
    "hidden_size": 768,
    "num_hidden_layers": 24,
    "state_size": 16,
    "conv_kernel": 4,
    "expand": 2,
    "time_step_rank": 48,
    "layer_norm_epsilon": 1e-5,
    "eos_token_id": 0,
    "torch_dtype": "float32",
}
MAMBA2 = {
    "model_type": "mamba2",
    "vocab_size": 32768,
    "hidden_size": 4096,
    "num_hidden_layers": 64,
    "num_heads": 128,
    "head_dim": 64,
    "expand": 2,
    "state_size": 128,
    "n_groups": 8,
    "conv_kernel": 4,
    "chunk_size": 256,
    "tie_word_embeddings": False,
    "norm_before_gate": True,
    "time_step_limit": [0.0, math.inf],
    "eos_token_id": [2, 3],
    "dtype": "bfloat16",
}
ORIGINAL = {
    "d_model": 2048,
    "n_layer": 48,
    "vocab_size": 50277,
    "ssm_cfg": {"layer": "Mamba2"},
    "attn_layer_idx": [],
    "attn_cfg": {},
    "d_intermediate": 0,
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "pad_vocab_size_multiple": 16,
    "tie_embeddings": True,
}


def test_transformers_mamba() -> None:
    config = parse_config(MAMBA)
    assert config == ModelConfig("mamba", 50280, 768, 24, 1536, 16, 4, dt_rank=48, eos_token_ids=(0,))
    assert config.units == config.conv_dim == 1536 and config.is_mamba1


def test_transformers_falcon_mamba() -> None:
    raw = MAMBA | {"model_type": "falcon_mamba", "mixer_rms_eps": 1e-6, "tie_word_embeddings": False}
    config = parse_config(raw | {"intermediate_size": 2000, "time_step_rank": "auto"})
    assert config.mixer_rms_eps == 1e-6 and not config.tie_embeddings
    assert config.d_inner == 2000 and config.dt_rank == 48
    assert parse_config(MAMBA | {"mixer_rms_eps": 1e-6}).mixer_rms_eps is None


@pytest.mark.parametrize("limit", [[0.0, math.inf], [0.0, {"__float__": "Infinity"}], None])
def test_transformers_mamba2_in_both_spellings(limit: object) -> None:
    config = parse_config(MAMBA2 | {"time_step_limit": limit})
    assert config.d_inner == 8192 and config.n_heads == config.units == 128 and config.n_groups == 8
    assert config.conv_dim == 8192 + 2 * 8 * 128
    assert config.time_step_limit == (0.0, math.inf)
    assert config.eos_token_ids == (2, 3) and not config.tie_embeddings
    assert not config.norm_before_gate  # transformers' code never does, whatever its file says


def test_original_mamba2() -> None:
    config = parse_config(ORIGINAL)
    assert config.model_type == "mamba2" and config.vocab_size == 50288
    assert (config.d_inner, config.n_heads, config.headdim, config.d_state) == (4096, 64, 64, 128)
    assert config.n_groups == 1 and config.tie_embeddings and config.norm_eps == 1e-5
    small = {"layer": "Mamba2", "d_state": 64, "headdim": 32, "ngroups": 2, "expand": 4, "d_conv": 3}
    config = parse_config(ORIGINAL | {"ssm_cfg": small | {"norm_before_gate": True, "dt_limit": [0.001, 0.1]}})
    assert (config.d_inner, config.n_heads, config.d_conv, config.n_groups) == (8192, 256, 3, 2)
    assert config.norm_before_gate and config.time_step_limit == (0.001, 0.1)


@pytest.mark.parametrize("ssm", [{}, {"layer": "Mamba1"}, None])
def test_original_mamba1(ssm: object) -> None:
    config = parse_config({"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": ssm})
    assert config == ModelConfig("mamba", 50280, 768, 24, 1536, 16, 4, dt_rank=48)
    assert parse_config({"d_model": 768, "n_layer": 1, "vocab_size": 8, "ssm_cfg": {"dt_rank": 7}}).dt_rank == 7


def test_training_length_from_our_block() -> None:
    assert parse_config(MAMBA | {"longmamba": {"training_length": 512}}).training_length == 512
    with pytest.raises(ConfigError, match=r"longmamba\.training_length"):
        parse_config(MAMBA | {"longmamba": {"training_length": 0}})


@pytest.mark.parametrize(
    "value", [0, -1, 1.5, 10**9, 2**31, 2**63, 10**400, "24", True, math.nan, math.inf, [24], {"a": 1}]
)
@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "num_hidden_layers", "state_size", "conv_kernel"])
def test_impossible_sizes_name_their_key(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"'{key}'") as caught:
        parse_config(MAMBA | {key: value})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200 and caught.value.hint


@pytest.mark.parametrize("value", [0, -1, 1.5, 10**9, "x", False, math.nan])
@pytest.mark.parametrize("key", ["num_heads", "head_dim", "n_groups", "chunk_size", "intermediate_size"])
def test_impossible_mamba2_sizes_name_their_key(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"'{key}'"):
        parse_config(MAMBA2 | {key: value})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"layer_norm_epsilon": math.nan}, "layer_norm_epsilon"),
        ({"layer_norm_epsilon": {"__float__": "NaN"}}, "layer_norm_epsilon"),
        ({"layer_norm_epsilon": -1e-5}, "layer_norm_epsilon"),
        ({"layer_norm_epsilon": math.inf}, "layer_norm_epsilon"),
        ({"time_step_limit": [0.1, 0.1]}, "time_step_limit"),
        ({"time_step_limit": [math.nan, 1]}, "time_step_limit"),
        ({"time_step_limit": [-1, 1]}, "time_step_limit"),
        ({"time_step_limit": 3}, "time_step_limit"),
        ({"num_heads": 3}, "num_heads"),
        ({"n_groups": 3}, "n_groups"),
        ({"use_bias": "no"}, "use_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"eos_token_id": 99999}, "eos_token_id"),
        ({"eos_token_id": list(range(1000))}, "eos_token_id"),
        ({"eos_token_id": "</s>"}, "eos_token_id"),
        ({"longmamba": 3}, "longmamba"),
        ({"model_type": "llama"}, "model_type"),
        ({"model_type": None}, "model_type"),
        ({"model_type": ["mamba"]}, "model_type"),
        (
            {"hidden_size": 2**18, "intermediate_size": 2**18, "num_heads": 2**12, "num_hidden_layers": 1024},
            "num_",
        ),
    ],
)
def test_impossible_options_name_their_key(change: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=f"'{named}"):
        parse_config(MAMBA2 | change)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rms_norm": False}, "rms_norm"),
        ({"attn_layer_idx": [-1]}, "attn_layer_idx"),
        ({"d_intermediate": 4096}, "d_intermediate"),
        ({"ssm_cfg": {"layer": "Mamba4"}}, r"ssm_cfg\.layer"),
        ({"ssm_cfg": {"layer": "Mamba2", "headdim": 48}}, r"ssm_cfg\.headdim"),
        ({"ssm_cfg": {"layer": "Mamba2", "D_has_hdim": True}}, r"ssm_cfg\.D_has_hdim"),
        ({"ssm_cfg": {"layer": "Mamba2", "rmsnorm": False}}, r"ssm_cfg\.rmsnorm"),
        ({"ssm_cfg": {"layer": "Mamba2", "expand": 1e9}}, r"ssm_cfg\.expand"),
        ({"ssm_cfg": {"layer": "Mamba2", "expand": math.nan}}, r"ssm_cfg\.expand"),
        ({"ssm_cfg": []}, "ssm_cfg"),
        ({"d_model": 10**9}, "d_model"),
        ({"n_layer": 10**9}, "n_layer"),
        ({"pad_vocab_size_multiple": 0}, "pad_vocab_size_multiple"),
    ],
)
def test_impossible_originals_name_their_key(change: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=f"'{named}'"):
        parse_config(ORIGINAL | change)


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "num_hidden_layers"])
def test_missing_keys_are_named(key: str) -> None:
    with pytest.raises(ConfigError, match=f"'{key}' is missing"):
        parse_config({name: value for name, value in MAMBA.items() if name != key})


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(base=st.sampled_from([MAMBA, MAMBA2, ORIGINAL]), data=st.data())
def test_any_change_is_accepted_or_a_config_error(base: dict, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from([*base, "ssm_cfg", "longmamba", "use_bias", "mixer_rms_eps"]))
    try:
        config = parse_config(base | {key: data.draw(ANYTHING)})
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert 0 < config.n_layer <= 1024 and 0 < config.d_inner <= 1 << 18


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "{",
        '{"a": 1, "a": 2}',
        '{"a": {"b": 1, "b": 2}}',
        '{"a": NaN}',
        "[" * 100_000,
        '{"a": ' * 100_000,
        '{"a": ' + "9" * 5000 + "}",
        '{"a": "\ud800"}'.encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_broken_json_is_a_config_error(tmp_path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"config\.json") as caught:
        parse_config(read_json(tmp_path / "config.json"))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_read_json_is_bounded_and_knows_infinity(tmp_path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(MAMBA2))  # Python writes a bare Infinity, as transformers 4 does
    assert parse_config(read_json(path)) == parse_config(MAMBA2)
    path.write_text("{" + " " * 2000 + "}")
    with pytest.raises(ConfigError, match="larger than"):
        read_json(path, max_bytes=1000)
    with pytest.raises(ConfigError, match="Cannot read"):
        read_json(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="Cannot read"):
        read_json(tmp_path)


def test_config_needs_neither_mlx_nor_numpy() -> None:
    code = "import sys, longmamba_mlx, longmamba_mlx.models.config.parse, longmamba_mlx.conversion; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"mlx", "mlx.core", "numpy", "huggingface_hub", "transformers"} & set(loaded.split())


@pytest.mark.parametrize("model_type", ROWS)
def test_every_family_is_one_row_with_a_config_and_a_class(model_type: str) -> None:
    assert callable(import_module(f"longmamba_mlx.models.config.{ROWS[model_type].config}").parse)
    assert issubclass(FAMILIES[model_type], LanguageModel)
    with pytest.raises(ConfigError, match=r"hidden_size|d_model"):  # the row's own reader is asked
        parse_config({"model_type": model_type})


def test_families_behave_as_a_mapping() -> None:
    assert list(FAMILIES) == list(ROWS) == list(MODEL_TYPES) and len(FAMILIES) == len(ROWS)
    assert "gpt2" not in FAMILIES
    with pytest.raises(KeyError):
        FAMILIES["gpt2"]
