"""NumPy-backed twins of nn.Linear and nn.Embedding for a CPU without Apple's Accelerate.

The weights stay the module's own MLX arrays: NumPy reads the same memory through the buffer protocol, so
nothing is held twice and parameter names do not change.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from longmamba_mlx.ops import arrays
from longmamba_mlx.ops.cpu import to_mlx, to_numpy


class CPULinear(nn.Linear):
    """nn.Linear through NumPy's BLAS."""

    def __call__(self, x: mx.array) -> mx.array:
        bias = to_numpy(self.bias) if "bias" in self else None
        return to_mlx(arrays.linear(to_numpy(x), to_numpy(self.weight), bias), x.dtype)


class CPUEmbedding(nn.Embedding):
    """nn.Embedding whose `as_linear` (a tied head) goes through NumPy's BLAS."""

    def as_linear(self, x: mx.array) -> mx.array:
        return to_mlx(arrays.linear(to_numpy(x), to_numpy(self.weight)), x.dtype)


def use_numpy_linears(model: nn.Module) -> None:
    """Turn every plain nn.Linear and nn.Embedding of `model` into its twin, in place."""
    for _, module in model.named_modules():
        # The class alone changes: the twins hold the same weights under the same names.
        if type(module) is nn.Linear:
            module.__class__ = CPULinear
        elif type(module) is nn.Embedding:
            module.__class__ = CPUEmbedding
