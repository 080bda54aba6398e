"""Default option values, importable without Typer."""

from __future__ import annotations

from longmamba_mlx.filtering.registry import DEFAULT_NAME

FILTER = DEFAULT_NAME
CHAT_TOKENS = 256
TEMPERATURE = 0.0
SEED = 0
