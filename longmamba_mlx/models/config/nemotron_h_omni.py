"""Nemotron-H Omni, a multimodal Nemotron-H, of which only the language model is read."""

from __future__ import annotations

from collections.abc import Mapping

from longmamba_mlx.models.config import nemotron_h
from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.storage.json_config import Reader

MODEL_TYPE = "nemotron_h_omni"


def parse(reader: Reader) -> ModelConfig:
    """The Nemotron-H inside. Raises ConfigError."""
    return nemotron_h.parse(Reader(text_part(reader), f"{_key(reader)}."))


def text_part(reader: Reader) -> dict[str, object]:
    """The language model's own table as a config.json, with what the whole file says of end tokens and dtype."""
    around: Mapping[str, object] = {
        key: reader.raw[key] for key in ("eos_token_id", "dtype", "torch_dtype", "longmamba") if reader.has(key)
    }
    return {**around, **reader.table(_key(reader)).raw, "model_type": "nemotron_h"}


def _key(reader: Reader) -> str:
    return "llm_config" if reader.has("llm_config") and not reader.has("text_config") else "text_config"
