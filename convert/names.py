"""Tensor names of the known checkpoints -> the names transformers and this package use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from longmamba_mlx.errors import ModelError

T = TypeVar("T")

# What original mamba_ssm checkpoints call differently; all other names are equal.
_RENAMED = {"backbone.embedding.weight": "backbone.embeddings.weight"}

# Left float32 in every conversion. They are small, and a 16-bit A_log, dt_bias or dt_proj moves slow decays
# and the step sizes the filter compares: in bfloat16 exp(-0.001) is 1, a state that never forgets.
_FLOAT32_ENDINGS = (
    ".A_log",
    ".D",
    ".dt_bias",
    ".dt_proj.weight",
    ".dt_proj.bias",
    ".norm.weight",
    ".norm_f.weight",
)


def rename(weights: Mapping[str, T]) -> dict[str, T]:
    """The tensors under this package's names. Raises ModelError when two would get the same name."""
    renamed: dict[str, T] = {}
    for name, value in weights.items():
        new = _RENAMED.get(name, name)
        if new in renamed:
            raise ModelError(f"the checkpoint holds {new} twice, under two names")
        renamed[new] = value
    return renamed


def stays_float32(name: str) -> bool:
    """True for the small tensors that a conversion never rounds."""
    return name.endswith(_FLOAT32_ENDINGS)
