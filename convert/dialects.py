"""A checked config -> the config.json of a converted folder (transformers' keys, which mlx-lm reads too)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from longmamba_mlx.config import ModelConfig


def normalised_config(config: ModelConfig, source: Mapping[str, object]) -> dict[str, object]:
    """What `parse_config` reads back as `config`; the "longmamba" block of `source` is carried over."""
    table: dict[str, object] = {
        "model_type": config.model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_inner,
        "num_hidden_layers": config.n_layer,
        "state_size": config.d_state,
        "conv_kernel": config.d_conv,
        "hidden_act": "silu",
        "layer_norm_epsilon": config.norm_eps,
        "use_bias": config.use_bias,
        "use_conv_bias": config.use_conv_bias,
        "tie_word_embeddings": config.tie_embeddings,
        "residual_in_fp32": True,
    }
    table |= _mamba1_keys(config) if config.is_mamba1 else _mamba2_keys(config)
    if config.eos_token_ids:
        ids = list(config.eos_token_ids)
        table["eos_token_id"] = ids if len(ids) > 1 else ids[0]
    if source.get("longmamba") is not None:
        table["longmamba"] = source["longmamba"]
    return table


def _mamba1_keys(config: ModelConfig) -> dict[str, object]:
    keys: dict[str, object] = {"time_step_rank": config.dt_rank}
    if config.mixer_rms_eps is not None:
        keys["mixer_rms_eps"] = config.mixer_rms_eps
    return keys


def _mamba2_keys(config: ModelConfig) -> dict[str, object]:
    keys: dict[str, object] = {
        "num_heads": config.n_heads,
        "head_dim": config.headdim,
        "n_groups": config.n_groups,
        "chunk_size": config.chunk_size,
        "time_step_rank": "auto",
        "time_step_limit": [_json_float(limit) for limit in config.time_step_limit],
    }
    if config.norm_before_gate:
        keys["mamba_norm_before_gate"] = True
    return keys


def _json_float(value: float) -> object:
    """JSON has no infinity; this is how transformers 5 and mlx-lm write it."""
    return {"__float__": "Infinity"} if math.isinf(value) else value
