"""The Metal kernel of both filtered scans (Mamba-1 and Mamba-2), one token after the other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import mlx.core as mx

from longmamba_mlx.metal_kernels import source
from longmamba_mlx.metal_kernels.scan_inputs import NAMES, Coefficients

_SIMD = 32
# Threads that keep a large Apple GPU busy; below it a row's states are spread over more lanes.
_BUSY_THREADS = 4096
_MAX_LANES = 16
_STATES_A_THREAD = 16
_STAGED_FLOATS = 1024
_LOADED_AHEAD = 4  # U in the kernel
# B and C of `_LOADED_AHEAD` tokens in float32 must fit 32 KiB of threadgroup memory.
MAX_STATES = 1024


@dataclass(frozen=True, slots=True)
class Layout:
    """How the work is laid out: `lanes` threads a row, `staged` tokens at once, `group` threads a threadgroup,
    `width` threads a head, a multiple of `group`."""

    lanes: int
    staged: int
    group: int
    width: int


def layout(batch: int, heads: int, rows: int, states: int, lanes: int | None = None) -> Layout:
    """Choose lanes (or take the given number, a power of two that divides `states`) for these sizes."""
    if lanes is None:
        lanes = 1
        while states % (2 * lanes) == 0 and lanes < _MAX_LANES:
            crowded = states // lanes > _STATES_A_THREAD
            if not crowded and batch * heads * rows * lanes >= _BUSY_THREADS:
                break
            lanes *= 2
    # All rows of a head read the same B and C: with more states, more rows share what is staged.
    group = 64 if states <= 32 else min(256, -(-rows * lanes // _SIMD) * _SIMD)
    staged = max(_LOADED_AHEAD, min(32, _STAGED_FLOATS // states // _LOADED_AHEAD * _LOADED_AHEAD))
    return Layout(lanes=lanes, staged=staged, group=group, width=-(-rows * lanes // group) * group)


@lru_cache(maxsize=1)
def _kernel() -> Any:
    return mx.fast.metal_kernel(
        name="longmamba_sequential_scan",
        input_names=list(NAMES),
        output_names=["y", "state_out", "kept"],
        source=source("sequential_scan"),
        header=source("softplus"),
        ensure_row_contiguous=False,  # strides are read instead: splits of wider arrays are not copied
    )


def sequential_scan(
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
    lanes: int | None = None,
    verbose: bool = False,
) -> tuple[mx.array, mx.array, mx.array]:
    """One launch.

    x, z (b, l, h, p), B, C (b, l, g, n) floating; dt (b, l, h, p), or (b, l, h, 1) per head;
    state (b, h, p, n) float32. Returns y (b, l, h, p) in x's dtype, the state and kept counts (b, l) int32 (one
    zero without `return_kept`). Arguments are not checked here.
    """
    batch, length, heads, rows = x.shape
    states = B.shape[3]
    plan = layout(batch, heads, rows, states, lanes)
    shapes = [("T", x.dtype), ("N", states), ("S", plan.lanes), ("TB", plan.staged), ("GROUP", plan.group)]
    flags = [("PER_HEAD", fixed.per_head), ("HAS_Z", z is not None), ("REVERSE", reverse), ("KEPT", return_kept)]
    parts = (heads if fixed.per_head else plan.width // _SIMD,) if return_kept else ()
    y, state_out, kept = _kernel()(
        inputs=fixed.inputs(x, dt, z, B, C, state),
        output_shapes=[x.shape, state.shape, (batch, length, *parts) if return_kept else (1,)],
        output_dtypes=[x.dtype, mx.float32, mx.uint8],
        grid=(plan.width, heads, batch),
        threadgroup=(plan.group, 1, 1),
        template=[*shapes, *flags],
        verbose=verbose,
    )
    # MLX sums bytes in uint32; to see that as int32 is no launch.
    return y, state_out, kept.sum(axis=-1).view(mx.int32) if return_kept else kept
