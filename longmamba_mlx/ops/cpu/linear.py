"""NumPy-backed twins of nn.Linear and nn.Embedding for a CPU without Apple's Accelerate.

The weights stay the module's own MLX arrays: NumPy reads the same memory through the buffer protocol, so
nothing is held twice and parameter names do not change.
"""

from __future__ import annotations

from types import ModuleType

import mlx.core as mx
import mlx.nn as nn

from longmamba_mlx.ops.cpu.arrays import to_mlx, to_numpy


class CPULinear(nn.Linear):
    """nn.Linear through NumPy's BLAS. `_fast` is `numpy_ops` or `numba_ops`."""

    _fast: ModuleType

    def __call__(self, x: mx.array) -> mx.array:
        bias = to_numpy(self.bias) if "bias" in self else None
        return to_mlx(self._fast.linear(to_numpy(x), to_numpy(self.weight), bias), x.dtype)


class CPUEmbedding(nn.Embedding):
    """nn.Embedding whose `as_linear` (a tied head) goes through NumPy's BLAS."""

    _fast: ModuleType

    def as_linear(self, x: mx.array) -> mx.array:
        return to_mlx(self._fast.linear(to_numpy(x), to_numpy(self.weight)), x.dtype)


_TWINS: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: CPULinear, nn.Embedding: CPUEmbedding}


def use_numpy_linears(model: nn.Module, fast: ModuleType) -> None:
    """Turn every plain nn.Linear and nn.Embedding of `model` into its twin, in place; `fast` multiplies."""
    for _, module in model.named_modules():
        twin = _TWINS.get(type(module))
        if twin is not None:
            # The class alone changes: the twins hold the same weights under the same names.
            module.__class__ = twin
            module._fast = fast
