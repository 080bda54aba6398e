"""Mamba-3's scan in blocks: matrix products instead of steps, as `chunked_ssd` does it for Mamba-2.

A key is used twice: with the weight `own` of its token from that token on, and with the weight `earlier` of the next
kept token from *that* one on. So a block of Q tokens reads Q + 1 keys, the first of which is that of the last kept
token before the block, and whether the second weight counts follows from where that next kept token is.
"""

from __future__ import annotations

import math

import mlx.core as mx

from longmamba_mlx.ops.mamba3 import reference
from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs, Mamba3Scan, Mamba3State
from longmamba_mlx.ops.mamba3.tokens import Tokens, finished, tokens

BLOCK = 64
"""Rows of a block's matrices: tokens times rank."""


def mamba3_scan(inputs: Mamba3Inputs) -> Mamba3Scan:
    """The same result as `reference.mamba3_scan`, blockwise."""
    if inputs.x.shape[1] == 1:
        return reference.mamba3_scan(inputs)  # decoding: a step takes fewer operations than a block
    found = tokens(inputs)
    batch, length, heads, width = inputs.x.shape
    block = min(max(1, BLOCK // inputs.rank), length)
    start, size = inputs.start, inputs.B.shape[4]

    # The last kept token before each block, and of all; 0 is that of the initial state, which is put in front.
    count = -(-length // block)
    places = mx.where(found.keep, mx.arange(1, length + 1)[:, None], 0)
    ends = [min(end, length) - 1 for end in range(block, count * block + 1, block)]
    latest = mx.take(mx.cummax(places, axis=1), mx.array(ends), axis=1)
    latest = mx.concatenate([mx.zeros_like(latest[:, :1]), latest], axis=1)
    k_edge = mx.concatenate([start.k[:, None], found.k], axis=1)
    k_edge = mx.take_along_axis(k_edge, latest[..., None, None], axis=1)
    v_edge = mx.concatenate([start.v[:, None], found.v], axis=1)
    v_edge = mx.take_along_axis(v_edge, latest[..., None], axis=1)

    # (b, h, blocks, tokens or keys, ...)
    keys = mx.concatenate([k_edge[:, :count, None], _blocks(found.k, block)], axis=2).transpose(0, 3, 1, 2, 4, 5)
    values = mx.concatenate([v_edge[:, :count, None], _blocks(found.v, block)], axis=2).transpose(0, 3, 1, 2, 4)
    queries = _blocks(found.q, block).transpose(0, 3, 1, 2, 4, 5)
    inside = _weights(found, block)

    up = mx.ones((heads, 1, width)) if inputs.mimo is None else inputs.mimo.x.astype(mx.float32)
    values = (values[..., None, :] * up[:, None, None]).reshape(batch, heads, count, -1, width)
    keys = keys.reshape(batch, heads, count, -1, size)
    queries = queries.reshape(batch, heads, count, -1, size)
    scores = queries @ keys.swapaxes(-1, -2)
    y = (scores * _by_rank(inside, inputs.rank)) @ values

    to_end = mx.repeat(inside[..., -1, :], inputs.rank, axis=-1)
    added = (values * to_end[..., None]).swapaxes(-1, -2) @ keys
    exponents = _blocks(found.exponent, block).transpose(0, 3, 1, 2)
    carried, ssm = _carry(added, mx.exp(exponents.sum(axis=-1)), start.ssm)
    from_start = mx.repeat(mx.exp(mx.cumsum(exponents, axis=-1)), inputs.rank, axis=-1)
    y = y + (queries @ carried.swapaxes(-1, -2)) * from_start[..., None]

    y = y.reshape(batch, heads, count * block, inputs.rank, width)[:, :, :length].swapaxes(1, 2)
    last = (mx.take(array, array.shape[1] - 1, axis=1) for array in (found.angle, k_edge, v_edge))
    state = Mamba3State(ssm, *last)
    return inputs.result(finished(y, inputs), state, found.keep)


def _weights(found: Tokens, block: int) -> mx.array:
    """What tokens make of keys within a block, (b, h, blocks, q, q + 1)."""
    keep = _blocks(found.keep, block).transpose(0, 3, 1, 2)
    own, earlier, exponent = (
        _blocks(array, block).transpose(0, 3, 1, 2) for array in (found.own, found.earlier, found.exponent)
    )
    # Key j is that of token j - 1 and decays from token j on.
    rows, keys = mx.arange(block)[:, None], mx.arange(block + 1)
    sums = mx.cumsum(mx.where(rows >= keys, exponent[..., None], 0.0), axis=-2)
    decay = mx.exp(mx.where(rows >= keys - 1, sums, -math.inf))

    # The next kept token from each place on, `block` where the block has none: its weight then is 0.
    nothing = mx.zeros_like(own[..., :1])
    following = mx.where(keep, mx.arange(block), block)
    following = mx.cummin(following, axis=-1, reverse=True)
    following = mx.concatenate([following, mx.full(nothing.shape, block, dtype=following.dtype)], axis=-1)
    later = mx.take_along_axis(mx.concatenate([earlier, nothing], axis=-1), following, axis=-1)
    later = mx.concatenate([later[..., :1], mx.where(keep, later[..., 1:], 0.0)], axis=-1)
    later = mx.where(following[..., None, :] <= rows, later[..., None, :], 0.0)
    return decay * (mx.concatenate([nothing, own], axis=-1)[..., None, :] + later)


def _by_rank(inside: mx.array, rank: int) -> mx.array:
    """(..., q, q + 1) -> (..., q r, (q + 1) r): the same weight for all pairs of a token and a key."""
    return inside if rank == 1 else mx.repeat(mx.repeat(inside, rank, axis=-1), rank, axis=-2)


def _blocks(array: mx.array, block: int) -> mx.array:
    """(b, l, ...) -> (b, k, q, ...). What fills the last block is not kept, has no weight and no decay."""
    short = -array.shape[1] % block
    if short:
        array = mx.pad(array, [(0, 0), (0, short)] + [(0, 0)] * (array.ndim - 2))
    return array.reshape(array.shape[0], -1, block, *array.shape[2:])


def _carry(added: mx.array, decay: mx.array, state: mx.array) -> tuple[mx.array, mx.array]:
    """The state over the blocks: added (b, h, k, p, n), decay (b, h, k) -> before each, and last."""
    before = []
    for k in range(added.shape[2]):
        before.append(state)
        state = state * decay[:, :, k, None, None] + added[:, :, k]
    return mx.stack(before, axis=2), state
