"""The Metal kernel of Mamba-2's scan in chunks of 64 tokens, on the GPU's matrix units."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import mlx.core as mx

from longmamba_mlx.metal_kernels import source
from longmamba_mlx.metal_kernels.scan_inputs import NAMES, Coefficients

CHUNK = 64
_THREADS = 256
_SIMDGROUPS = 8
_TILE = 16
_THREADGROUP_BYTES = 32 << 10
# Matrices of 8 x 8 that a simdgroup holds in registers, two floats a lane each: the state, and y of its tokens; where
# that leaves room, their C too (HOLDS_C in the kernel). Apple's GPUs have 128 registers a thread.
_MATRICES = 40


def rows_at_once(rows: int, states: int) -> int | None:
    """How many of a head's rows one threadgroup takes: all where its state fits in registers and in threadgroup memory,
    else the largest part that does. None where the kernel cannot do such a head."""
    if rows % 8 or states % 64 or not states:
        return None
    for parts in range(1, rows // 8 + 1):
        size = rows // parts
        if rows % parts or size % 8:
            continue
        staged = max(size * (states // 4 + 8), _TILE * (states + 8)) + size * (_TILE + 4) + 6 * CHUNK + 1
        if size // 8 * (states // (8 * _SIMDGROUPS) + 1) <= _MATRICES and 4 * staged <= _THREADGROUP_BYTES:
            return size
    return None


@lru_cache(maxsize=1)
def _kernel() -> Any:
    return mx.fast.metal_kernel(
        name="longmamba_chunked_ssd",
        input_names=list(NAMES),
        output_names=["y", "state_out", "kept"],
        source=source("chunked_ssd"),
        header="#include <metal_simdgroup_matrix>\n" + source("softplus") + source("two_sum"),
        ensure_row_contiguous=False,
    )


def chunked_ssd(
    x: mx.array,
    dt: mx.array,
    z: mx.array | None,
    B: mx.array,
    C: mx.array,
    state: mx.array,
    fixed: Coefficients,
    *,
    reverse: bool = False,
    return_kept: bool = False,
    verbose: bool = False,
) -> tuple[mx.array, mx.array, mx.array]:
    """One launch, arguments and results as of `sequential_scan` with `fixed.per_head`; a multiple of `CHUNK` tokens
    and sizes for which `rows_at_once` has an answer. Other arguments are not checked here."""
    batch, length, heads, rows = x.shape
    states = B.shape[3]
    size = rows_at_once(rows, states)
    if size is None or length % CHUNK:
        raise ValueError(f"chunked_ssd: cannot take {length} tokens of {rows} rows with {states} states")
    y, state_out, kept = _kernel()(
        inputs=fixed.inputs(x, dt, z, B, C, state),
        output_shapes=[x.shape, state.shape, (batch, length, heads) if return_kept else (1,)],
        output_dtypes=[x.dtype, mx.float32, mx.uint8],
        grid=(_THREADS * (rows // size), heads, batch),
        threadgroup=(_THREADS, 1, 1),
        template=[("T", x.dtype), ("P", size), ("N", states), ("HAS_Z", z is not None), ("REVERSE", reverse),
                  ("KEPT", return_kept)],
        verbose=verbose,
    )  # fmt: skip
    return y, state_out, kept.sum(axis=-1).view(mx.int32) if return_kept else kept
