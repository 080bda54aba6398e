"""Mamba-3's decay rates, which depend on the token."""

from __future__ import annotations

from types import ModuleType
from typing import Any


def decay_rates(xp: ModuleType, raw: Any, floor: float) -> Any:
    """|A| of a token from its raw number a, float32, of NumPy or MLX (`xp`): 1 + a for a >= 0, 1 / (1 - a) below, and
    at least `floor`."""
    return xp.maximum(xp.maximum(raw, 0.0) + 1.0 / (1.0 - xp.minimum(raw, 0.0)), floor)
