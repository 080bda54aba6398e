"""The Metal kernel of Mamba-1's filtered selective scan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import mlx.core as mx

from longmamba_mlx.metal_kernels import source

_GROUP = 64
_SIMD = 32
_MAIN = ("x", "dt", "z", "A", "B", "C")
_INPUTS = (*_MAIN, "D", "dt_bias", "threshold", "state_in", "limits", "length", "channels")
_OUTPUTS = ("y", "state_out", "kept")
# Threads that keep a large Apple GPU busy; below it a channel's states are spread over more lanes.
_BUSY_THREADS = 4096
_STAGED_FLOATS = 512
_MAX_STATES_A_THREAD = 16


@dataclass(frozen=True, slots=True)
class Layout:
    """How the work is laid out: `lanes` threads a channel, `staged` tokens at once, `width` threads."""

    lanes: int
    staged: int
    width: int


def layout(batch: int, channels: int, states: int, lanes: int | None = None) -> Layout:
    """Choose lanes (or take the given number, a power of two that divides `states`) for these sizes."""
    if lanes is None:
        lanes = 1
        while states % (2 * lanes) == 0 and lanes < 16:
            crowded = states // lanes > _MAX_STATES_A_THREAD
            if not crowded and batch * channels * lanes >= _BUSY_THREADS:
                break
            lanes *= 2
    threads = channels * lanes
    return Layout(
        lanes=lanes, staged=max(1, min(32, _STAGED_FLOATS // states)), width=-(-threads // _GROUP) * _GROUP
    )


@lru_cache(maxsize=1)
def _kernel() -> Any:
    return mx.fast.metal_kernel(
        name="longmamba_selective_scan",
        input_names=list(_INPUTS),
        output_names=list(_OUTPUTS),
        source=source("selective_scan"),
        header=source("softplus"),
    )


def selective_scan(
    x: mx.array,
    dt: mx.array,
    z: mx.array | None,
    A: mx.array,
    B: mx.array,
    C: mx.array,
    D: mx.array,
    dt_bias: mx.array,
    threshold: mx.array,
    state: mx.array,
    limits: mx.array,
    *,
    reverse: bool,
    return_kept: bool,
    lanes: int | None = None,
    verbose: bool = False,
) -> tuple[mx.array, mx.array, mx.array]:
    """Launch the scan: y (b, l, d) in x's dtype, state (b, d, n) and kept counts (b, l) int32 (else zeros).

    x, dt, z (b, l, d) and B, C (b, l, n) floating; A (d, n), D, dt_bias, threshold (d,), state (b, d, n) and
    limits (2,) float32. Arguments are not checked here.
    """
    batch, length, channels = x.shape
    states = A.shape[1]
    plan = layout(batch, channels, states, lanes)
    sizes = [("T", x.dtype), ("N", states), ("S", plan.lanes), ("TB", plan.staged)]
    flags = [("HAS_Z", z is not None), ("REVERSE", reverse), ("KEPT", return_kept)]
    kept_shape = (batch, length, plan.width // _SIMD) if return_kept else (1,)
    y, state_out, kept = _kernel()(
        # Without a gate, x stands in for it: the kernel then never reads it.
        inputs=[
            x,
            dt,
            x if z is None else z,
            A,
            B,
            C,
            D,
            dt_bias,
            threshold,
            state,
            limits,
            length,
            channels,
        ],
        output_shapes=[x.shape, state.shape, kept_shape],
        output_dtypes=[x.dtype, mx.float32, mx.uint8],
        grid=(plan.width, batch, 1),
        threadgroup=(_GROUP, 1, 1),
        template=[*sizes, *flags],
        verbose=verbose,
    )
    if not return_kept:
        return y, state_out, kept
    return y, state_out, kept.astype(mx.int32).sum(axis=-1)
