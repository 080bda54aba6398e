"""A model's config.json, read from untrusted JSON into one frozen, bounded `ModelConfig`.

Three dialects are understood: transformers 4 and 5 (5 writes infinity as `{"__float__": "Infinity"}` and calls layers
`linear_attention` and `full_attention`) and the original mamba_ssm files (`d_model`, `n_layer`, `ssm_cfg`). Every
number is checked against a bound before anything is allocated from it. Here are the pure Mamba families; each hybrid
family has a module of its own beside this one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from importlib import import_module

from longmamba_mlx.errors import ConfigError
from longmamba_mlx.models.config.base import (
    MAX_CONV,
    MAX_LAYERS,
    MAX_STATE,
    MAX_VOCABULARY,
    MAX_WIDTH,
    ModelConfig,
    check_sizes,
    dt_rank,
    expanded,
    refuse_activation,
    training_length,
)
from longmamba_mlx.storage.json_config import Reader, read_json, shown

__all__ = ["MODEL_TYPES", "ModelConfig", "parse_config", "read_json"]

_PACKAGE = "longmamba_mlx.models.config"
# Each has a module of that name in this package, loaded when it is needed.
_HYBRIDS = {
    "bamba": "bamba",
    "falcon_h1": "falcon_h1",
    "granitemoehybrid": "granite",
    "jamba": "jamba",
    "nemotron_h": "nemotron_h",
    "zamba2": "zamba2",
}

MODEL_TYPES = ("mamba", "falcon_mamba", "mamba2", *_HYBRIDS)


def parse_config(raw: Mapping[str, object]) -> ModelConfig:
    """Check a config.json of any known dialect and return the one form the package works with.

    Raises ConfigError, naming the key, for anything missing, of the wrong kind, out of bounds or unsupported.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError("the model's config is not a JSON object")
    reader = Reader(raw)
    model_type = raw.get("model_type")
    if model_type is None and ("ssm_cfg" in raw or "d_model" in raw):
        config = _parse_original(reader)
    elif model_type in ("mamba", "falcon_mamba"):
        config = _parse_mamba1(reader, str(model_type))
    elif model_type == "mamba2":
        config = _parse_mamba2(reader)
    elif isinstance(model_type, str) and model_type in _HYBRIDS:
        parse: Callable[[Reader], ModelConfig] = import_module(f"{_PACKAGE}.{_HYBRIDS[model_type]}").parse
        config = parse(reader)
    else:
        raise ConfigError(
            f"config key 'model_type' is {shown(model_type)}, which is not supported",
            hint=f"supported: {', '.join(MODEL_TYPES)} and original mamba_ssm checkpoints",
        )
    check_sizes(reader, config)
    return config


def _parse_mamba1(reader: Reader, model_type: str) -> ModelConfig:
    refuse_activation(reader)
    d_model = reader.integer("hidden_size", MAX_WIDTH)
    d_inner = reader.integer("intermediate_size", MAX_WIDTH, default=expanded(reader, "expand", d_model))
    vocab_size = reader.integer("vocab_size", MAX_VOCABULARY)
    falcon = model_type == "falcon_mamba"
    return ModelConfig(
        model_type=model_type,
        vocab_size=vocab_size,
        d_model=d_model,
        n_layer=reader.integer("num_hidden_layers", MAX_LAYERS),
        d_inner=d_inner,
        d_state=reader.integer("state_size", MAX_STATE, default=16),
        d_conv=reader.integer("conv_kernel", MAX_CONV, minimum=2, default=4),
        dt_rank=dt_rank(reader, "time_step_rank", d_model),
        norm_eps=reader.number("layer_norm_epsilon", 1e-12, 1.0, 1e-5),
        # The class's default in transformers, for files that leave it out.
        mixer_rms_eps=reader.number("mixer_rms_eps", 1e-12, 1.0, 1e-6) if falcon else None,
        use_bias=reader.flag("use_bias", False),
        use_conv_bias=reader.flag("use_conv_bias", True),
        tie_embeddings=reader.flag("tie_word_embeddings", True),
        training_length=training_length(reader),
        eos_token_ids=reader.token_ids("eos_token_id", vocab_size),
    )


def _parse_mamba2(reader: Reader) -> ModelConfig:
    refuse_activation(reader)
    d_model = reader.integer("hidden_size", MAX_WIDTH)
    vocab_size = reader.integer("vocab_size", MAX_VOCABULARY)
    n_heads = reader.integer("num_heads", MAX_WIDTH, default=128)
    headdim = reader.integer("head_dim", MAX_WIDTH, default=64)
    # transformers 5 writes no intermediate_size; other tools leave out expand.
    d_inner = expanded(reader, "expand", d_model) if reader.has("expand") else n_heads * headdim
    return ModelConfig(
        model_type="mamba2",
        vocab_size=vocab_size,
        d_model=d_model,
        n_layer=reader.integer("num_hidden_layers", MAX_LAYERS),
        d_inner=reader.integer("intermediate_size", MAX_WIDTH, default=d_inner),
        d_state=reader.integer("state_size", MAX_STATE, default=128),
        d_conv=reader.integer("conv_kernel", MAX_CONV, minimum=2, default=4),
        n_heads=n_heads,
        headdim=headdim,
        n_groups=reader.integer("n_groups", MAX_WIDTH, default=8),
        chunk_size=reader.integer("chunk_size", 1 << 16, default=256),
        time_step_limit=reader.limits("time_step_limit"),
        norm_eps=reader.number("layer_norm_epsilon", 1e-12, 1.0, 1e-5),
        use_bias=reader.flag("use_bias", False),
        use_conv_bias=reader.flag("use_conv_bias", True),
        tie_embeddings=reader.flag("tie_word_embeddings", False),
        # transformers' own files may say `norm_before_gate: true` while its code always gates first, so that
        # key is not read here; this one our converter writes for originals trained the other way.
        norm_before_gate=reader.flag("mamba_norm_before_gate", False),
        training_length=training_length(reader),
        eos_token_ids=reader.token_ids("eos_token_id", vocab_size),
    )


def _parse_original(reader: Reader) -> ModelConfig:
    """mamba_ssm's own files: sizes at the top, what the layer's constructor was given in `ssm_cfg`."""
    ssm = reader.table("ssm_cfg")
    layer = ssm.raw.get("layer", "Mamba1")
    if layer not in ("Mamba1", "Mamba2"):
        raise ssm.fail("layer", f"is {shown(layer)}, which is not supported")
    _refuse_original_options(reader, ssm)
    d_model = reader.integer("d_model", MAX_WIDTH)
    mamba2 = layer == "Mamba2"
    multiple = reader.integer("pad_vocab_size_multiple", 1 << 16, default=8)
    vocab_size = -(-reader.integer("vocab_size", MAX_VOCABULARY) // multiple) * multiple
    d_inner = expanded(ssm, "expand", d_model)
    headdim = ssm.integer("headdim", MAX_WIDTH, default=64) if mamba2 else 0
    if mamba2 and d_inner % headdim:
        raise ssm.fail("headdim", f"is {headdim}, which does not divide the inner width {d_inner}")
    return ModelConfig(
        model_type="mamba2" if mamba2 else "mamba",
        vocab_size=vocab_size,
        d_model=d_model,
        n_layer=reader.integer("n_layer", MAX_LAYERS),
        d_inner=d_inner,
        d_state=ssm.integer("d_state", MAX_STATE, default=128 if mamba2 else 16),
        d_conv=ssm.integer("d_conv", MAX_CONV, minimum=2, default=4),
        dt_rank=0 if mamba2 else dt_rank(ssm, "dt_rank", d_model),
        n_heads=d_inner // headdim if mamba2 else 0,
        headdim=headdim,
        n_groups=ssm.integer("ngroups", MAX_WIDTH, default=1) if mamba2 else 1,
        chunk_size=ssm.integer("chunk_size", 1 << 16, default=256) if mamba2 else 64,
        time_step_limit=ssm.limits("dt_limit") if mamba2 else (0.0, math.inf),
        norm_eps=reader.number("norm_epsilon", 1e-12, 1.0, 1e-5),
        use_bias=ssm.flag("bias", False),
        use_conv_bias=ssm.flag("conv_bias", True),
        tie_embeddings=reader.flag("tie_embeddings", True),
        norm_before_gate=ssm.flag("norm_before_gate", False) if mamba2 else False,
        training_length=training_length(reader),
        eos_token_ids=reader.token_ids("eos_token_id", vocab_size),
    )


def _refuse_original_options(reader: Reader, ssm: Reader) -> None:
    """Options of mamba_ssm that change the arithmetic and that no public pure-Mamba checkpoint uses."""
    if not reader.flag("rms_norm", True):
        raise reader.fail("rms_norm", "is false; models with LayerNorm are not supported")
    if not ssm.flag("rmsnorm", True):
        raise ssm.fail("rmsnorm", "is false; mixers without the gated norm are not supported")
    if ssm.flag("D_has_hdim", False):
        raise ssm.fail("D_has_hdim", "is true, which is not supported")
    if reader.raw.get("attn_layer_idx"):
        raise reader.fail("attn_layer_idx", "asks for attention layers, which are not supported")
    for table, key in ((reader, "d_intermediate"), (ssm, "d_ssm")):
        if table.raw.get(key):
            raise table.fail(key, "is set, which is not supported")
