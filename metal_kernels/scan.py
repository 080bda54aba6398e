"""The Metal kernel of both filtered scans (Mamba-1 and Mamba-2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import mlx.core as mx

from longmamba_mlx.metal_kernels import source

_SIMD = 32
_ARRAYS = ("x", "dt", "z", "A", "B", "C", "D", "dt_bias", "threshold", "state_in")
# Threads that keep a large Apple GPU busy; below it a row's states are spread over more lanes.
_BUSY_THREADS = 4096
_MAX_LANES = 16
_STATES_A_THREAD = 16
_STAGED_FLOATS = 1024
_LOADED_AHEAD = 4  # U in the kernel
# B and C of `_LOADED_AHEAD` tokens in float32 must fit 32 KiB of threadgroup memory.
MAX_STATES = 1024
# Longer inputs are read in pieces: a launch of this many tokens is a fraction of a second in any layer (modelled),
# far from the seconds after which macOS stops a command buffer.
MAX_TOKENS = 32768


@dataclass(frozen=True, slots=True)
class Layout:
    """How the work is laid out: `lanes` threads a row, `staged` tokens at once, `group` threads a threadgroup,
    `width` threads a head, a multiple of `group`."""

    lanes: int
    staged: int
    group: int
    width: int


@dataclass(frozen=True, slots=True)
class Coefficients:
    """What does not change with time: A (u, n) or, `per_head`, (u, 1), D and dt_bias (u,), all floating; threshold (u,)
    float32, where None filters nothing; bounds of the step size. A unit u is a head, or a row of the only head."""

    A: mx.array
    D: mx.array
    dt_bias: mx.array
    threshold: mx.array | None
    limit: tuple[float, float]
    per_head: bool


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


@lru_cache(maxsize=256, typed=True)
def numbers(*values: float) -> mx.array:
    """A few numbers as one small array, int32 or float32: a kernel has only 31 buffers. Made once, since every token
    of a decode step passes the same ones."""
    return mx.array(values)


@lru_cache(maxsize=1)
def _kernel() -> Any:
    return mx.fast.metal_kernel(
        name="longmamba_scan",
        input_names=[*_ARRAYS, "dt_range", "sizes"],
        output_names=["y", "state_out", "kept"],
        source=source("scan"),
        header=source("softplus"),
        ensure_row_contiguous=False,  # strides are read instead: splits of wider arrays are not copied
    )


def scan(
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
    """Launch the scan, once for each `MAX_TOKENS` tokens; the pieces are bitwise the whole.

    x, z (b, l, h, p), B, C (b, l, g, n) floating; dt (b, l, h, p), or (b, l, h, 1) per head;
    state (b, h, p, n) float32. Returns y (b, l, h, p) in x's dtype, the state and kept counts (b, l) int32 (one
    zero without `return_kept`). Arguments are not checked here.
    """
    length = x.shape[1]
    pieces = [slice(start, min(start + MAX_TOKENS, length)) for start in range(0, length, MAX_TOKENS)]
    options: dict[str, Any] = {"reverse": reverse, "return_kept": return_kept, "lanes": lanes, "verbose": verbose}
    if len(pieces) == 1:
        return _launch(x, dt, z, B, C, state, fixed, **options)
    results = []
    for piece in reversed(pieces) if reverse else pieces:
        gate = None if z is None else z[:, piece]
        y, state, kept = _launch(x[:, piece], dt[:, piece], gate, B[:, piece], C[:, piece], state, fixed, **options)
        results.append((y, kept))
    ordered = results[::-1] if reverse else results
    kept = mx.concatenate([kept for _, kept in ordered], axis=1) if return_kept else ordered[0][1]
    return mx.concatenate([y for y, _ in ordered], axis=1), state, kept


def _launch(
    x: mx.array,
    dt: mx.array,
    z: mx.array | None,
    B: mx.array,
    C: mx.array,
    state: mx.array,
    fixed: Coefficients,
    *,
    reverse: bool,
    return_kept: bool,
    lanes: int | None,
    verbose: bool,
) -> tuple[mx.array, mx.array, mx.array]:
    batch, length, heads, rows = x.shape
    states = B.shape[3]
    plan = layout(batch, heads, rows, states, lanes)
    threshold = fixed.dt_bias if fixed.threshold is None else fixed.threshold  # read, not used
    arrays = [x, dt, x if z is None else z, fixed.A, B, C, fixed.D, fixed.dt_bias, threshold, state]
    dt_range = numbers(float(fixed.limit[0]), float(fixed.limit[1]))
    sizes = numbers(length, rows, heads // B.shape[2], int(fixed.threshold is not None))
    shapes = [("T", x.dtype), ("N", states), ("S", plan.lanes), ("TB", plan.staged), ("GROUP", plan.group)]
    flags = [("PER_HEAD", fixed.per_head), ("HAS_Z", z is not None), ("REVERSE", reverse), ("KEPT", return_kept)]
    parts = (heads if fixed.per_head else plan.width // _SIMD,) if return_kept else ()
    y, state_out, kept = _kernel()(
        inputs=[*arrays, dt_range, sizes],
        output_shapes=[x.shape, state.shape, (batch, length, *parts) if return_kept else (1,)],
        output_dtypes=[x.dtype, mx.float32, mx.uint8],
        grid=(plan.width, heads, batch),
        threadgroup=(plan.group, 1, 1),
        template=[*shapes, *flags],
        verbose=verbose,
    )
    # MLX sums bytes in uint32; to see that as int32 is no launch.
    return y, state_out, kept.sum(axis=-1).view(mx.int32) if return_kept else kept
