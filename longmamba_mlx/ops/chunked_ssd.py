"""Mamba-2's scan in blocks (state-space duality, arXiv 2405.21060, sec. 6): matrix products instead of a loop.

Within a block of Q tokens the scan is a masked, decay-weighted attention; between blocks only the state is
carried. Every decay exponent is a *sum over its own segment*: differences of long running sums would lose the
small dt that the filter is about.
"""

from __future__ import annotations

import math

import mlx.core as mx

from longmamba_mlx.ops.activations import silu
from longmamba_mlx.ops.filtered_dt import filtered_dt
from longmamba_mlx.ops.inputs import Scan, ScanInputs

BLOCK = 64


def ssd_scan(inputs: ScanInputs) -> Scan:
    """The same result as `reference.ssd_scan`, blockwise. Shapes as there; matrix products in float32."""
    batch, length, heads, width = inputs.x.shape
    groups, size = inputs.B.shape[2], inputs.B.shape[3]
    dt, keep = filtered_dt(inputs.dt, inputs.dt_bias, inputs.threshold, inputs.time_step_limit)
    x, B, C = (array.astype(mx.float32) for array in (inputs.x, inputs.B, inputs.C))
    reverse, block, per_group = inputs.reverse, min(BLOCK, length), heads // groups

    # Blocks of time, groups before heads: (b, g, r, k, q, ...) with r heads a group, k blocks, q tokens.
    x_blocks = _blocks(x, block, reverse).reshape(batch, -1, block, groups, per_group, width)
    x_blocks = x_blocks.transpose(0, 3, 4, 1, 2, 5)
    dt_blocks = _blocks(dt, block, reverse).reshape(batch, -1, block, groups, per_group)
    dt_blocks = dt_blocks.transpose(0, 3, 4, 1, 2)
    B_blocks, C_blocks = (_blocks(array, block, reverse).transpose(0, 3, 1, 2, 4) for array in (B, C))
    dt_A = dt_blocks * inputs.A.astype(mx.float32).reshape(groups, per_group, 1, 1)

    inside = mx.exp(_segment_sums(dt_A))
    scores = (C_blocks @ B_blocks.swapaxes(-1, -2))[:, :, None]
    written = x_blocks * dt_blocks[..., None]
    y = (scores * inside) @ written

    # What each block adds to the state, each token decayed to the block's end: (b, g, r, k, p, n).
    to_end = inside[..., -1, :]
    added = (written * to_end[..., None]).swapaxes(-1, -2) @ B_blocks[:, :, None]
    lead = (batch, groups, per_group)
    before, state = _carry(added, mx.exp(dt_A.sum(axis=-1)), inputs.initial_state, lead)
    from_start = mx.exp(mx.cumsum(dt_A, axis=-1))
    y = y + (C_blocks[:, :, None] @ before.swapaxes(-1, -2)) * from_start[..., None]

    y = y.transpose(0, 3, 4, 1, 2, 5).reshape(batch, -1, heads, width)[:, :length]
    y = _flip(y) if reverse else y
    if inputs.D is not None:
        y = y + inputs.D.astype(mx.float32)[:, None] * x
    if inputs.z is not None:
        y = y * silu(inputs.z.astype(mx.float32))
    y, state = y.astype(inputs.x.dtype), state.reshape(batch, heads, width, size)
    return (y, state, keep.astype(mx.int32).sum(axis=-1)) if inputs.return_kept else (y, state)


def _flip(array: mx.array) -> mx.array:
    return array[:, ::-1]


def _blocks(array: mx.array, block: int, reverse: bool) -> mx.array:
    """(b, l, ...) -> (b, k, q, ...). Zeros fill the last block: dt = 0 changes nothing."""
    length = array.shape[1]
    array = _flip(array) if reverse else array
    short = -length % block
    if short:
        array = mx.pad(array, [(0, 0), (0, short)] + [(0, 0)] * (array.ndim - 2))
    return array.reshape(array.shape[0], -1, block, *array.shape[2:])


def _segment_sums(dt_A: mx.array) -> mx.array:
    """(..., q) -> (..., q, q): entry (i, j) is the sum over j+1..i, -inf above the diagonal.

    Each entry is accumulated on its own (column j starts at j), so no large sums are subtracted.
    """
    q = dt_A.shape[-1]
    below = mx.tril(mx.ones((q, q), dtype=mx.bool_), -1)
    columns = mx.where(below, dt_A[..., :, None], mx.array(0.0))
    sums = mx.cumsum(columns, axis=-2)
    return mx.where(mx.tril(mx.ones((q, q), dtype=mx.bool_)), sums, mx.array(-math.inf))


def _carry(
    added: mx.array, decay: mx.array, initial_state: mx.array | None, lead: tuple[int, int, int]
) -> tuple[mx.array, mx.array]:
    """The state over the blocks: added (b, g, r, k, p, n), decay (b, g, r, k) -> before each, and last."""
    width, size = added.shape[-2:]
    if initial_state is None:
        state = mx.zeros((*lead, width, size), dtype=mx.float32)
    else:
        state = initial_state.reshape(*lead, width, size)
    before = []
    for k in range(added.shape[3]):
        before.append(state)
        state = state * decay[:, :, :, k, None, None] + added[:, :, :, k]
    return mx.stack(before, axis=3), state
