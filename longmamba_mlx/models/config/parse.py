"""A model's config.json, read from untrusted JSON into one frozen, bounded `ModelConfig`.

Three dialects are supported: transformers 4 and 5 (5 writes infinity as `{"__float__": "Infinity"}` and calls layers
`linear_attention` and `full_attention`) and the original mamba_ssm files. Every number is checked against a bound
before anything is allocated from it. Each family has a module of its own beside this one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from longmamba_mlx.errors import ConfigError
from longmamba_mlx.models.config.base import ModelConfig, check_sizes
from longmamba_mlx.models.registry import ROWS
from longmamba_mlx.storage.json_config import Reader, read_json, shown

__all__ = ["MODEL_TYPES", "ModelConfig", "parse_config", "read_json"]

MODEL_TYPES = tuple(ROWS)


def parse_config(raw: Mapping[str, object]) -> ModelConfig:
    """Check a config.json of any known dialect and return the one form the package works with.

    Raises ConfigError, naming the key, for anything missing, of the wrong kind, out of bounds or unsupported.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError("The model's config is not a JSON object.")
    model_type = raw.get("model_type")
    if model_type is None and ("ssm_cfg" in raw or "d_model" in raw):
        module = "original"
    elif isinstance(model_type, str) and model_type in ROWS:
        module = ROWS[model_type].config
    else:
        raise ConfigError(
            f"Config key 'model_type' is {shown(model_type)}, which is not supported.",
            hint=f"Supported: {', '.join(MODEL_TYPES)} and original mamba_ssm checkpoints.",
        )
    parse: Callable[[Reader], ModelConfig] = import_module(f"longmamba_mlx.models.config.{module}").parse
    reader = Reader(raw)
    config = parse(reader)
    check_sizes(reader, config)
    return config
