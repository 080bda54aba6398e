"""The Metal kernel of the causal depthwise convolution with its bias, silu and carried window."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import mlx.core as mx

from longmamba_mlx.metal_kernels import source

_GROUP = 64
_TOKENS_A_THREAD = 16


@lru_cache(maxsize=1)
def _kernel() -> Any:
    return mx.fast.metal_kernel(
        name="longmamba_conv",
        input_names=["x", "weight", "bias", "initial", "length"],
        output_names=["y", "window"],
        source=source("conv"),
        ensure_row_contiguous=False,
    )


def causal_conv1d(
    x: mx.array, weight: mx.array, bias: mx.array, initial: mx.array, *, verbose: bool = False
) -> tuple[mx.array, mx.array]:
    """One launch: x (b, l, c), weight (c, k) with k >= 2, bias (c,), initial (b, k-1, c), all floating -> y (b, l, c)
    and window (b, k-1, c), both in x's dtype. Arguments are not checked here."""
    batch, length, channels = x.shape
    y, window = _kernel()(
        inputs=[x, weight, bias, initial, length],
        output_shapes=[x.shape, (batch, weight.shape[1] - 1, channels)],
        output_dtypes=[x.dtype, x.dtype],
        grid=(channels, -(-length // _TOKENS_A_THREAD), batch),
        threadgroup=(_GROUP, 1, 1),
        template=[("T", x.dtype), ("K", weight.shape[1]), ("TOKENS", _TOKENS_A_THREAD)],
        verbose=verbose,
    )
    return y, window
