"""Mamba-2's scan in blocks (state-space duality, arXiv 2405.21060, sec. 6): matrix products instead of steps.

Within a block of Q tokens the scan is a masked, decay-weighted attention; between blocks only the state is
carried. Every decay exponent is a *sum over its own segment*: differences of long running sums would lose the
small steps that the filter is about.
"""

from __future__ import annotations

import math

import mlx.core as mx

from longmamba_mlx.ops.reference import Limit, Scan, silu, steps

BLOCK = 64


def ssd_scan(
    x: mx.array,
    dt: mx.array,
    A: mx.array,
    B: mx.array,
    C: mx.array,
    D: mx.array | None = None,
    z: mx.array | None = None,
    dt_bias: mx.array | None = None,
    threshold: mx.array | None = None,
    initial_state: mx.array | None = None,
    time_step_limit: Limit = (0.0, math.inf),
    reverse: bool = False,
    return_kept: bool = False,
) -> Scan:
    """The same result as `reference.ssd_scan`, blockwise. Shapes as there; matrix products in float32."""
    batch, length, heads, width = x.shape
    groups, size = B.shape[2], B.shape[3]
    step, keep = steps(dt, dt_bias, threshold, time_step_limit)
    u, b_in, c_out = (array.astype(mx.float32) for array in (x, B, C))
    block = min(BLOCK, length)
    per_group = heads // groups

    # Blocks of time, groups before heads: (b, g, r, k, q, ...) with r heads a group, k blocks, q tokens.
    u_blocks = _blocks(u, block, reverse).reshape(batch, -1, block, groups, per_group, width)
    u_blocks = u_blocks.transpose(0, 3, 4, 1, 2, 5)
    step_blocks = _blocks(step, block, reverse).reshape(batch, -1, block, groups, per_group)
    step_blocks = step_blocks.transpose(0, 3, 4, 1, 2)
    b_blocks, c_blocks = (_blocks(array, block, reverse).transpose(0, 3, 1, 2, 4) for array in (b_in, c_out))
    exponents = step_blocks * A.astype(mx.float32).reshape(groups, per_group, 1, 1)

    inside = mx.exp(_segment_sums(exponents))
    scores = (c_blocks @ b_blocks.swapaxes(-1, -2))[:, :, None]
    written = u_blocks * step_blocks[..., None]
    y = (scores * inside) @ written

    # What each block adds to the state, each token decayed to the block's end: (b, g, r, k, p, n).
    to_end = inside[..., -1, :]
    added = (written * to_end[..., None]).swapaxes(-1, -2) @ b_blocks[:, :, None]
    before, state = _carry(added, mx.exp(exponents.sum(axis=-1)), initial_state, (batch, groups, per_group))
    from_start = mx.exp(mx.cumsum(exponents, axis=-1))
    y = y + (c_blocks[:, :, None] @ before.swapaxes(-1, -2)) * from_start[..., None]

    y = y.transpose(0, 3, 4, 1, 2, 5).reshape(batch, -1, heads, width)[:, :length]
    y = _flip(y) if reverse else y
    if D is not None:
        y = y + D.astype(mx.float32)[:, None] * u
    if z is not None:
        y = y * silu(z.astype(mx.float32))
    state = state.reshape(batch, heads, width, size)
    if not return_kept:
        return y.astype(x.dtype), state
    return y.astype(x.dtype), state, keep.astype(mx.int32).sum(axis=-1)


def _flip(array: mx.array) -> mx.array:
    return array[:, ::-1]


def _blocks(array: mx.array, block: int, reverse: bool) -> mx.array:
    """(b, l, ...) -> (b, k, q, ...). Zeros fill the last block: a step of 0 changes nothing."""
    length = array.shape[1]
    array = _flip(array) if reverse else array
    short = -length % block
    if short:
        array = mx.pad(array, [(0, 0), (0, short)] + [(0, 0)] * (array.ndim - 2))
    return array.reshape(array.shape[0], -1, block, *array.shape[2:])


def _segment_sums(exponents: mx.array) -> mx.array:
    """(..., q) -> (..., q, q): entry (i, j) is the sum over j+1..i, -inf above the diagonal.

    Each entry is accumulated on its own (column j starts at j), so no large sums are subtracted.
    """
    q = exponents.shape[-1]
    below = mx.tril(mx.ones((q, q), dtype=mx.bool_), -1)
    columns = mx.where(below, exponents[..., :, None], mx.array(0.0))
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
