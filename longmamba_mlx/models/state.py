"""What a model carries from token to token: constant in size, whatever was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import mlx.core as mx

from longmamba_mlx.errors import StateError


@dataclass(frozen=True, slots=True)
class LayerState:
    """One layer's state.

    `conv` (b, d_conv - 1, conv_dim) holds the last raw inputs of the convolution; `ssm` is the scan's state
    in float32: (b, d_inner, d_state) for Mamba-1, (b, n_heads, headdim, d_state) for Mamba-2.
    """

    conv: mx.array
    ssm: mx.array


@dataclass(frozen=True, slots=True)
class ModelState:
    """The states of all layers after `tokens` tokens. Arrays are immutable, so sharing one is a copy."""

    layers: tuple[LayerState, ...]
    tokens: int

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(layer.conv.nbytes + layer.ssm.nbytes for layer in self.layers)

    def arrays(self) -> dict[str, mx.array]:
        """Flat names -> arrays: "layers.0.conv", "layers.0.ssm", ..."""
        named = {}
        for index, layer in enumerate(self.layers):
            named[f"layers.{index}.conv"] = layer.conv
            named[f"layers.{index}.ssm"] = layer.ssm
        return named

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, mx.array], tokens: int) -> ModelState:
        """The inverse of `arrays`. Raises StateError for missing or unknown names."""
        count = len(arrays) // 2
        expected = {f"layers.{index}.{part}" for index in range(count) for part in ("conv", "ssm")}
        if not count or set(arrays) != expected:
            raise StateError("the stored state does not hold the layers of a model")
        layers = (
            LayerState(conv=arrays[f"layers.{index}.conv"], ssm=arrays[f"layers.{index}.ssm"]) for index in range(count)
        )
        return cls(layers=tuple(layers), tokens=tokens)

    def is_finite(self) -> bool:
        """False when any number is NaN or infinite."""
        checks = [mx.isfinite(array).all() for array in self.arrays().values()]
        return bool(mx.stack(checks).all().item())

    def evaluate(self) -> None:
        """Compute all arrays now."""
        mx.eval(*self.arrays().values())
