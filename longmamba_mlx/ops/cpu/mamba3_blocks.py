"""Mamba-3's scan on NumPy arrays, in blocks of matrix products; `ops.mamba3.reference` says what it means.

A key is used by its own token and by the next kept one, and is in the state with both weights at once. Where
filtered tokens come between the two, at the start of a block, the second use is taken out of what they read.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.ops.cpu.mamba3_sequence import Carried, Sequence, Wide, weights_of_the_next
from longmamba_mlx.ops.cpu.numpy_ops import Array, above_diagonal
from longmamba_mlx.ops.mamba3.turns import turned

# Rows of a block's matrices (tokens times rank), tokens worked on at once, bytes of the keys worked on at once.
_ROWS = 32
_TILE = 256
_KEY_BYTES = 1 << 19


def scan(
    sequence: Sequence, state: Carried, y: Array, up: Array, biases: tuple[Array, Array], *, neighbours: bool
) -> None:
    """One sequence through its tokens, so many heads at once that their keys stay in a core's cache. Writes y (l, h, r,
    p) and state."""
    heads, length = sequence.step.shape
    groups, _, rank, size = sequence.b_in.shape
    of_group = np.arange(heads) // (heads // groups)
    tile = max(1, _TILE // rank)
    together = max(1, _KEY_BYTES // (4 * min(tile, length) * rank * size))
    for first in range(0, heads, together):
        some = slice(first, min(first + together, heads))
        for begin in range(0, length, tile):
            now = slice(begin, min(begin + tile, length))
            part = sequence.part(some, now, of_group[some])
            found = _tile(part, state.heads(some), up[some], (biases[0][some], biases[1][some]), neighbours)
            y[now, some] = found.transpose(1, 0, 2, 3)


def _tile(part: Sequence, state: Carried, up: Array, biases: tuple[Array, Array], neighbours: bool) -> Array:
    """y (h, l, r, p) of some heads and tokens. Writes state."""
    angle = np.cumsum(turned(np, part.turn, part.step[..., None]), axis=1, dtype=np.uint32)
    angle += state.angle[:, None]
    radians = angle.view(np.int32).astype(np.float32)
    radians *= np.float32(2 * math.pi / (1 << 32))
    cos, sin = np.cos(radians)[:, :, None], np.sin(radians)[:, :, None]
    k = _rotated(part.b_in + biases[0][:, None], cos, sin, neighbours)
    q = _rotated(part.c_out + biases[1][:, None], cos, sin, neighbours)
    state.angle[:] = angle[:, -1]

    later, first = weights_of_the_next(part)
    before_v = state.v[:, None] * up
    state.ssm += np.matmul((before_v * first[:, None, None]).swapaxes(1, 2), state.k)
    length, rank = k.shape[1:3]
    block = max(1, _ROWS // rank)
    whole = length - length % block
    y = np.empty((*k.shape[:3], part.x.shape[-1]), np.float32)
    for now, size in ((slice(0, whole), block), (slice(whole, length), length - whole)):
        if now.start < now.stop:
            y[:, now] = _blocks(part, now, size, k[:, now], q[:, now], later[:, now], state, up)
    _take_out(y, part, k, q, first, later, state, up)
    _remember_last(part, k, state)
    return y


def _rotated(array: Array, cos: Array, sin: Array, neighbours: bool) -> Array:
    """array (h, l, r, n), changed in place: its pairs of dimensions turned by (h, l, 1, s)."""
    count, half = cos.shape[-1], array.shape[-1] // 2
    first = array[..., 0 : 2 * count : 2] if neighbours else array[..., :count]
    second = array[..., 1 : 2 * count : 2] if neighbours else array[..., half : half + count]
    turned = first * cos
    turned -= second * sin
    other = first * sin
    other += second * cos
    first[:], second[:] = turned, other
    return array


def _blocks(
    part: Sequence, now: slice, block: int, k: Array, q: Array, later: Array, state: Carried, up: Array
) -> Array:
    """y (h, l, r, p) of `now`, whole blocks of tokens; k, q (h, l, r, n) and later (h, l) are theirs.

    Writes the state's ssm, which holds the last key of a block with the weight that the next kept token gives it.
    """
    heads, length, rank, size = k.shape
    count, width = length // block, part.x.shape[-1]

    def cut(array: NDArray[Any]) -> NDArray[Any]:
        return array.reshape(heads, count, block, *array.shape[2:])

    x, later, own = cut(part.x[:, now]), cut(later), cut(part.own[:, now])
    keep = None if part.keep is None else cut(part.keep[:, now])
    # Running sums in float64: their differences keep every bit that float32 can show.
    sums = np.cumsum(cut(part.exponent[:, now]), axis=2)
    inside, to_end = _decays(sums, own, later, keep)

    values = (x[..., None, :] * up[:, None, None]).reshape(heads, count, block * rank, width)
    keys, queries = (array.reshape(heads, count, block * rank, size) for array in (k, q))
    scores = np.matmul(queries, keys.swapaxes(2, 3))
    scores.reshape(heads, count, block, rank, block, rank)[:] *= inside[:, :, :, None, :, None]
    y = np.matmul(scores, values)

    values *= np.repeat(to_end, rank, axis=2)[..., None]
    added = np.matmul(values.swapaxes(2, 3), keys)
    decay = np.exp(sums[:, :, -1]).astype(np.float32)[..., None, None]
    before = np.empty_like(added)
    for j in range(count):
        before[:, j] = state.ssm
        state.ssm *= decay[:, j]
        state.ssm += added[:, j]
    far = np.matmul(queries, before.swapaxes(2, 3))
    far *= np.repeat(np.exp(sums).astype(np.float32), rank, axis=2)[..., None]
    y += far
    result: Array = y.reshape(heads, length, rank, width)
    return result


def _decays(sums: Wide, own: Array, later: Array, keep: NDArray[np.bool_] | None) -> tuple[Array, Array]:
    """The weights of keys for the tokens of their block (h, k, q, q) and for what comes after it (h, k, q), decayed.

    sums (h, k, q) of exponents; own, later: the weights of a key for its own and for the next kept token.
    """
    block = sums.shape[2]
    inside = (sums[..., :, None] - sums[..., None, :]).astype(np.float32)
    inside += above_diagonal(block)
    np.exp(inside, out=inside)
    inside *= (own + later)[..., None, :]
    to_end = inside[:, :, -1].copy()
    # From a key to the next kept token there is its own weight alone, and no decay.
    if keep is None:
        places = np.arange(block)
        inside[..., places, places] = own
    else:
        kept = np.cumsum(keep, axis=-1, dtype=np.int32)
        alone = (kept[..., :, None] == kept[..., None, :]) & np.tri(block, dtype=np.bool_)
        np.copyto(inside, own[..., None, :], where=alone)
    return inside, to_end


def _take_out(
    y: Array, part: Sequence, k: Array, q: Array, first: Array, later: Array, before: Carried, up: Array
) -> None:
    """Subtract from y (h, l, r, p) what filtered tokens in front of their block's first kept token read too early.

    It is the key before the block, which is in the state with the weight that the next kept token gives it. `before`:
    the key and value of the last kept token before all.
    """
    x, keep = part.x, part.keep
    if keep is None:
        return
    (heads, length), rank = keep.shape, k.shape[2]
    block, rows = max(1, _ROWS // rank), np.arange(heads)
    latest = np.maximum.accumulate(np.where(keep, np.arange(length), -1), axis=1)
    for start in range(0, length, block):
        now = slice(start, start + block)
        ahead = np.logical_not(np.logical_or.accumulate(keep[:, now], axis=1))
        if not ahead.any():
            continue
        place = latest[:, start - 1] if start else np.full(heads, -1)
        known = place >= 0
        last_k = np.where(known[:, None, None], k[rows, place], before.k)
        last_v = np.where(known[:, None], x[rows, place], before.v)
        weight = np.where(known, later[rows, place], first)
        reads = np.matmul(q[:, now].reshape(heads, -1, q.shape[3]), last_k.swapaxes(1, 2))
        reads *= np.repeat(ahead * weight[:, None], rank, axis=1)[..., None]
        y[:, now] -= np.matmul(reads, last_v[:, None] * up).reshape(y[:, now].shape)


def _remember_last(part: Sequence, k: Array, state: Carried) -> None:
    """Put the last kept token's key and value into the state."""
    if part.keep is None:
        state.k[:], state.v[:] = k[:, -1], part.x[:, -1]
        return
    rows = np.flatnonzero(part.keep.any(axis=1))
    place = part.keep.shape[1] - 1 - np.argmax(part.keep[rows, ::-1], axis=1)
    state.k[rows], state.v[rows] = k[rows, place], part.x[rows, place]
