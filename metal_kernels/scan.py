"""A filtered scan in launches: which kernel takes which tokens."""

from __future__ import annotations

from itertools import pairwise

import mlx.core as mx

from longmamba_mlx.metal_kernels.chunked_ssd import CHUNK, chunked_ssd, rows_at_once
from longmamba_mlx.metal_kernels.scan_inputs import Coefficients
from longmamba_mlx.metal_kernels.sequential_scan import MAX_STATES, sequential_scan

__all__ = ["CHUNK", "MAX_STATES", "MAX_TOKENS", "Coefficients", "can_chunk", "rows_at_once", "scan"]

# Longer inputs are read in pieces: a launch of this many tokens is a fraction of a second in any layer (modelled),
# far from the seconds after which macOS stops a command buffer.
MAX_TOKENS = 32768


def can_chunk(rows: int, states: int) -> bool:
    """True where Mamba-2 heads of this size can go through the chunked kernel."""
    return rows_at_once(rows, states) is not None


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
    chunked: bool = False,
) -> tuple[mx.array, mx.array, mx.array]:
    """Launch the scan, at most `MAX_TOKENS` tokens at a time; arguments and results as of `sequential_scan`.

    With `chunked`, all whole chunks of `CHUNK` tokens go through the chunked kernel and the rest through the sequential
    one. Chunks begin at multiples of `CHUNK`, in reverse too: a split at such a multiple is bitwise the whole. A
    sequential scan is bitwise the whole however it is split.
    """
    length = x.shape[1]
    if length <= MAX_TOKENS and (not chunked or length < CHUNK or length % CHUNK == 0):  # no slices for every token
        launch = chunked_ssd if chunked and length >= CHUNK else sequential_scan
        return launch(x, dt, z, B, C, state, fixed, reverse=reverse, return_kept=return_kept)
    whole = length - length % CHUNK if chunked else 0
    edges = sorted({0, *range(MAX_TOKENS, length, MAX_TOKENS), whole, length})
    results = []
    for start, stop in list(pairwise(edges))[:: -1 if reverse else 1]:
        launch = chunked_ssd if stop <= whole else sequential_scan
        now = slice(start, stop)
        gate = None if z is None else z[:, now]
        y, state, kept = launch(
            x[:, now], dt[:, now], gate, B[:, now], C[:, now], state, fixed, reverse=reverse, return_kept=return_kept
        )
        results.append((y, kept))
    ordered = results[::-1] if reverse else results
    kept = mx.concatenate([kept for _, kept in ordered], axis=1) if return_kept else ordered[0][1]
    return mx.concatenate([y for y, _ in ordered], axis=1), state, kept
