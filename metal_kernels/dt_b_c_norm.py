"""The Metal kernel of the RMS norms of dt, B and C (Falcon-Mamba, Jamba)."""

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
        name="longmamba_dt_b_c_norms",
        input_names=["x", "dt_weight", "B_weight", "C_weight", "eps", "first", "second", "third"],
        output_names=["dt", "B", "C"],
        source=source("dt_b_c_norm"),
        ensure_row_contiguous=False,
    )


def dt_b_c_norms(
    x: mx.array, weights: tuple[mx.array, mx.array, mx.array], eps: float, *, verbose: bool = False
) -> tuple[mx.array, mx.array, mx.array]:
    """One launch: x (b, l, p + q + r) and weights (p,), (q,), (r,), all floating -> float32 (b, l, p), (b, l, q),
    (b, l, r). Arguments are not checked here."""
    batch, length, _ = x.shape
    sizes = [weight.shape[0] for weight in weights]
    threads = min(_MAX_THREADS, -(-max(sizes) // _SIMD) * _SIMD)
    dt, B, C = _kernel()(
        inputs=[x, *weights, float(eps), *sizes],
        output_shapes=[(batch, length, size) for size in sizes],
        output_dtypes=[mx.float32] * 3,
        grid=(3 * threads, length, batch),
        threadgroup=(threads, 1, 1),
        verbose=verbose,
    )
    return dt, B, C
