"""The Metal kernel of Mamba-2's gated RMS norm."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import mlx.core as mx

from longmamba_mlx.metal_kernels import source

_SIMD = 32
_MAX_THREADS = 256


@lru_cache(maxsize=1)
def _kernel() -> Any:
    return mx.fast.metal_kernel(
        name="longmamba_gated_norm",
        input_names=["y", "z", "weight", "eps", "size"],
        output_names=["out"],
        source=source("gated_norm"),
        ensure_row_contiguous=False,
    )


def gated_rms_norm(
    y: mx.array,
    z: mx.array,
    weight: mx.array,
    *,
    groups: int,
    eps: float,
    norm_before_gate: bool = False,
    verbose: bool = False,
) -> mx.array:
    """One launch: y, z (b, l, d), weight (d,), all floating; `groups` divides d. Returns (b, l, d) in y's dtype.
    Arguments are not checked here."""
    batch, length, width = y.shape
    size = width // groups
    threads = min(_MAX_THREADS, -(-size // _SIMD) * _SIMD)
    (out,) = _kernel()(
        inputs=[y, z, weight, float(eps), size],
        output_shapes=[y.shape],
        output_dtypes=[y.dtype],
        grid=(threads * groups, length, batch),
        threadgroup=(threads, 1, 1),
        template=[("T", y.dtype), ("BEFORE", norm_before_gate)],
        verbose=verbose,
    )
    result: mx.array = out
    return result
