"""Mamba-3's scan on NumPy arrays, in blocks of matrix products; `ops.mamba3.reference` says what it means.

A key is used by its own token and by the next kept one, and is in the state with both weights at once. Where
filtered tokens come between the two, at the start of a block, the second use is taken out of what they read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.ops.cpu.arrays import to_mlx, to_numpy
from longmamba_mlx.ops.cpu.numpy_ops import Array, above_diagonal, silu
from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs, Mamba3Scan, Mamba3State
from longmamba_mlx.ops.mamba3.rates import decay_rates
from longmamba_mlx.ops.mamba3.turns import turned, whole_steps, whole_turns

Wide = NDArray[np.float64]
Unsigned = NDArray[np.uint64]

# Rows of a block's matrices (tokens times rank), tokens worked on at once, bytes of the keys worked on at once.
_ROWS = 32
_TILE = 256
_KEY_BYTES = 1 << 19


@dataclass(slots=True)
class Carried:
    """One sequence's state, changed in place: ssm (h, p, n), angle (h, s) uint32, k (h, r, n), v (h, p)."""

    ssm: Array
    angle: NDArray[np.uint32]
    k: Array
    v: Array

    def heads(self, part: slice) -> Carried:
        """That of some heads, on the same memory."""
        return Carried(self.ssm[part], self.angle[part], self.k[part], self.v[part])


@dataclass(frozen=True, slots=True)
class Sequence:
    """One sequence, heads first: step (h, l) and turn (l, s) as in `turns`; keep (h, l) bool, None: all; exponent, own,
    earlier (h, l); x (h, l, p); b_in, c_out (g, l, r, n)."""

    step: Unsigned
    keep: NDArray[np.bool_] | None
    exponent: Wide
    own: Array
    earlier: Array
    turn: Unsigned
    x: Array
    b_in: Array
    c_out: Array

    def part(self, heads: slice, now: slice, groups: NDArray[np.intp]) -> Sequence:
        """Some heads and some tokens of it; `groups`: the group of each of the heads."""
        return Sequence(
            self.step[heads, now],
            None if self.keep is None else self.keep[heads, now],
            self.exponent[heads, now],
            self.own[heads, now],
            self.earlier[heads, now],
            self.turn[now],
            self.x[heads, now],
            self.b_in[groups, now],
            self.c_out[groups, now],
        )


def mamba3_scan(inputs: Mamba3Inputs) -> Mamba3Scan:
    """As `reference.mamba3_scan`."""
    batch, length, heads, width = inputs.x.shape
    step, keep = _steps(inputs)
    share = _sigmoid(to_numpy(inputs.trap).astype(np.float64))
    A = to_numpy(inputs.A)
    exponent = (A if inputs.A_floor is None else -decay_rates(np, A, inputs.A_floor)) * step
    bias = None if inputs.dt_bias is None else to_numpy(inputs.dt_bias)
    whole = whole_steps(np, to_numpy(inputs.dt), bias, keep)
    turn = whole_turns(np, to_numpy(inputs.angle))
    x, b_in, c_out = to_numpy(inputs.x), to_numpy(inputs.B), to_numpy(inputs.C)
    up = np.ones((heads, 1, width), np.float32) if inputs.mimo is None else to_numpy(inputs.mimo.x)
    biases = to_numpy(inputs.B_bias), to_numpy(inputs.C_bias)

    start = inputs.start
    carried = [np.array(array) for array in start.arrays()]
    y = np.empty((batch, length, heads, inputs.rank, width), np.float32)
    for i in range(batch):
        sequence = Sequence(
            step=np.ascontiguousarray(whole[i].T),
            keep=None if keep is None else np.ascontiguousarray(keep[i].T),
            exponent=np.ascontiguousarray(exponent[i].T),
            own=np.ascontiguousarray((share[i] * step[i]).T, np.float32),
            earlier=np.ascontiguousarray(((1 - share[i]) * step[i]).T, np.float32),
            turn=turn[i],
            x=x[i].swapaxes(0, 1),
            b_in=b_in[i].transpose(2, 0, 1, 3),
            c_out=c_out[i].transpose(2, 0, 1, 3),
        )
        state = Carried(*(array[i] for array in carried))
        _scan(sequence, state, y[i], up, biases, neighbours=inputs.neighbours)
    ssm, angle, k, v = carried
    after = Mamba3State(to_mlx(ssm), mx.array(angle), to_mlx(k), to_mlx(v))
    result = to_mlx(_finished(y, inputs), inputs.x.dtype), after
    if not inputs.return_kept:
        return result
    counts = np.full((batch, length), heads, np.int32) if keep is None else keep.sum(-1, dtype=np.int32)
    return (*result, to_mlx(counts, mx.int32))


def _steps(inputs: Mamba3Inputs) -> tuple[Wide, NDArray[np.bool_] | None]:
    """Step sizes (b, l, h), 0 where filtered, and what is kept, None: all. The filter compares float32 sums."""
    raw = to_numpy(inputs.dt)
    wide = raw.astype(np.float64)
    if inputs.dt_bias is not None:
        bias = to_numpy(inputs.dt_bias)
        raw, wide = raw + bias, wide + bias
    # float64, as there are few of them: what they make of the angle adds up over the text.
    step = np.maximum(wide, 0.0) + np.log1p(np.exp(-np.abs(wide)))
    if inputs.threshold is None:
        return step, None
    keep = raw > to_numpy(inputs.threshold)
    return step * keep, keep


def _sigmoid(x: Wide) -> Wide:
    result: Wide = 0.5 * (1.0 + np.tanh(0.5 * x))
    return result


def _scan(
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

    later, first = _weights_of_the_next(part)
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


def _weights_of_the_next(part: Sequence) -> tuple[Array, Array]:
    """The weight (h, l) with which the next kept token uses each token's key, 0 for filtered ones and where none comes,
    and that (h,) with which the first kept token uses the key before all."""
    later = np.zeros_like(part.own)
    if part.keep is None:
        later[:, :-1] = part.earlier[:, 1:]
        return later, part.earlier[:, 0]
    length = later.shape[1]
    following = np.where(part.keep, np.arange(length), length)
    following = np.minimum.accumulate(following[:, ::-1], axis=1)[:, ::-1]
    padded = np.concatenate([part.earlier, np.zeros_like(later[:, :1])], axis=1)
    upcoming = np.take_along_axis(padded, following, axis=1)
    later[:, :-1] = upcoming[:, 1:]
    later *= part.keep
    return later, upcoming[:, 0]


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


def _finished(y: Array, inputs: Mamba3Inputs) -> Array:
    """As `tokens.finished`, in NumPy: y (b, l, h, r, p), changed in place."""
    v, mimo = to_numpy(inputs.x)[:, :, :, None], inputs.mimo
    if inputs.D is not None:
        skip = to_numpy(inputs.D)[:, None, None]
        y += v * (skip if mimo is None else skip * to_numpy(mimo.x))
    if inputs.z is not None:
        z = to_numpy(inputs.z)[:, :, :, None]
        y *= silu(z if mimo is None else z * to_numpy(mimo.z))
    if mimo is None:
        return y[:, :, :, 0]
    if inputs.z is None:
        return y.swapaxes(2, 3)
    result: Array = np.einsum("blhrp,hrp->blhp", y, to_numpy(mimo.out))
    return result
