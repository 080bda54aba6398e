"""A checked config -> the config.json of a converted folder, in keys that transformers and mlx-lm read too."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from longmamba_mlx.errors import ConfigError
from longmamba_mlx.models.config.base import ModelConfig

# They name code to run, or a quantisation that the converted weights do not have.
_DROPPED = {"auto_map", "custom_pipelines", "model_file", "trust_remote_code", "_name_or_path"}


def normalised_config(
    config: ModelConfig,
    source: Mapping[str, object],
    *,
    dtype: str | None = None,
    end_tokens: tuple[int, ...] = (),
    block: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """The table to write: what `parse_config` reads back as `config`.

    Mamba-1 and Mamba-2 models get transformers' keys, whatever dialect `source` is in. The table of a hybrid and of
    Mamba-3 is the source's own, checked before, without what could make a reader run code. `end_tokens` are added to
    the model's own, `block` to the "longmamba" block.
    """
    table = _normalised(config) if config.hybrid is None and config.mamba3 is None else _carried(source, dtype)
    if config.mamba3 is not None:
        table |= {"model_type": config.model_type, "tie_embeddings": config.tie_embeddings}
    ids = list(dict.fromkeys([*config.eos_token_ids, *end_tokens]))
    if ids:
        table["eos_token_id"] = ids if len(ids) > 1 else ids[0]
    own = source.get("longmamba")
    settings = {**(own if isinstance(own, Mapping) else {}), **(block or {})}
    if settings:
        table["longmamba"] = settings
    return table


def config_text(table: Mapping[str, object]) -> str:
    """The table as JSON. Raises ConfigError for what JSON has no place for."""
    try:
        return json.dumps(table, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:  # all other keys were checked one by one
        raise ConfigError("Config key 'longmamba' holds infinity.", hint="Give a finite number.") from error


def _carried(source: Mapping[str, object], dtype: str | None) -> dict[str, object]:
    kept = {key: value for key, value in source.items() if key not in _DROPPED and key != "longmamba"}
    if dtype is not None:
        kept |= {key: dtype for key in ("dtype", "torch_dtype") if key in kept}
    try:
        return {key: _plain(value) for key, value in kept.items()}
    except RecursionError:
        raise ConfigError("config.json is nested too deeply", hint="Check it against its source.") from None


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if key not in _DROPPED}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return _json_float(value) if isinstance(value, float) else value


def _normalised(config: ModelConfig) -> dict[str, object]:
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
    return table | (_mamba1_keys(config) if config.is_mamba1 else _mamba2_keys(config))


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
    if not math.isinf(value):
        return value
    return {"__float__": "Infinity" if value > 0 else "-Infinity"}
