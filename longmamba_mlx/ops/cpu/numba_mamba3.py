"""Mamba-3's scan in loops that numba compiles, for wide layers; `cpu.mamba3` has the same in NumPy.

Four rows at once, a row being a token and one of its keys: a state is then read and written once for four of them, and
what is made of a token (its turned keys and queries) never leaves the first-level cache. A key is in the state with
the weights that its own and the next kept token give it; where filtered tokens read before that next one comes, the
second is taken out of what they read.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from longmamba_mlx.ops.cpu.numba_loops import loop, silu, sums
from longmamba_mlx.ops.cpu.numpy_ops import Array

ROWS = 4
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_RADIANS = np.float32(2 * math.pi / (1 << 32))
_HALF, _BITS = np.uint64(1 << 31), np.uint64(32)
# Of sin x / x and cos x, in x^2; x at most an eighth of a turn.
_S1, _S2, _S3, _S4 = (np.float32(term) for term in (-1 / 6, 1 / 120, -1 / 5040, 1 / 362880))
_C1, _C2, _C3, _C4, _C5 = (np.float32(term) for term in (-1 / 2, 1 / 24, -1 / 720, 1 / 40320, -1 / 3628800))


@loop
def turn(angle: Any, turns: Any, step: Any, cos: Array, sin: Array) -> None:
    """Add to each angle (s,) uint32 what a token turns (`turns.turned`), and take its cos and sin."""
    for s in range(angle.size):
        now = np.uint32(np.uint64(angle[s]) + ((turns[s] * step + _HALF) >> _BITS))
        angle[s] = now
        quarter = np.uint32(np.uint32(now + np.uint32(1 << 29)) >> np.uint32(30))
        rest = np.int32(np.uint32(now - np.uint32(quarter << np.uint32(30))))
        x = np.float32(rest) * _RADIANS
        w = x * x
        sine = x + x * w * (_S1 + w * (_S2 + w * (_S3 + w * _S4)))
        cosine = _ONE + w * (_C1 + w * (_C2 + w * (_C3 + w * (_C4 + w * _C5))))
        odd = (quarter & np.uint32(1)) != 0
        across, up = (-sine if odd else cosine), (cosine if odd else sine)
        cos[s] = -across if quarter >= np.uint32(2) else across
        sin[s] = -up if quarter >= np.uint32(2) else up


@loop
def turned(row: Array, bias: Array, cos: Array, sin: Array, neighbours: bool, to: Array) -> None:
    """row plus bias (n,) with its first pairs turned."""
    for n in range(row.size):
        to[n] = row[n] + bias[n]
    if neighbours:
        for s in range(cos.size):
            a, b = to[2 * s], to[2 * s + 1]
            to[2 * s] = a * cos[s] - b * sin[s]
            to[2 * s + 1] = a * sin[s] + b * cos[s]
    else:
        half = row.size // 2
        for s in range(cos.size):
            a, b = to[s], to[half + s]
            to[s] = a * cos[s] - b * sin[s]
            to[half + s] = a * sin[s] + b * cos[s]


@sums
def dot(a: Array, b: Array) -> Any:
    """The scalar product."""
    total = _ZERO
    for n in range(a.size):
        total += a[n] * b[n]
    return total


@sums
def read(state: Array, q: Array, to: Array) -> None:
    """to (4, p) = q (4, n) times state (p, n), transposed."""
    q0, q1, q2, q3 = q[0], q[1], q[2], q[3]
    for p in range(len(state)):
        row = state[p]
        y0 = y1 = y2 = y3 = _ZERO
        for n in range(row.size):
            y0 += row[n] * q0[n]
            y1 += row[n] * q1[n]
            y2 += row[n] * q2[n]
            y3 += row[n] * q3[n]
        to[0, p], to[1, p], to[2, p], to[3, p] = y0, y1, y2, y3


@sums
def read_and_write(state: Array, q: Array, k: Array, decay: Any, written: Array, to: Array) -> None:
    """As `read`; then state = decay state + written (4, p), transposed, times k (4, n)."""
    q0, q1, q2, q3 = q[0], q[1], q[2], q[3]
    k0, k1, k2, k3 = k[0], k[1], k[2], k[3]
    for p in range(len(state)):
        row = state[p]
        w0, w1, w2, w3 = written[0, p], written[1, p], written[2, p], written[3, p]
        y0 = y1 = y2 = y3 = _ZERO
        for n in range(row.size):
            h = row[n]
            y0 += h * q0[n]
            y1 += h * q1[n]
            y2 += h * q2[n]
            y3 += h * q3[n]
            row[n] = decay * h + w0 * k0[n] + w1 * k1[n] + w2 * k2[n] + w3 * k3[n]
        to[0, p], to[1, p], to[2, p], to[3, p] = y0, y1, y2, y3


class Tokens(NamedTuple):
    """One sequence: turns (l, s) and step (h, l), `whole_turns` and `whole_steps`; decay, own, later, keep (h, l); x
    (l, h, p); B, C (l, r, g, n). `later`: the weight with which the next kept token writes a kept token's key again.
    """

    turns: Any
    step: Any
    decay: Array
    own: Array
    later: Array
    keep: Any
    x: Array
    B: Array
    C: Array


class Fixed(NamedTuple):
    """B_bias, C_bias (h, r, n); up (h, r, p), by which x becomes the values of each rank; whether neighbours turn."""

    B_bias: Array
    C_bias: Array
    up: Array
    neighbours: bool


class State(NamedTuple):
    """ssm (h, p, n), angle (h, s), k (h, r, n), v (h, p), changed in place."""

    ssm: Array
    angle: Any
    k: Array
    v: Array


class Rows(NamedTuple):
    """Room for four rows: cos, sin (s,); keys k, queries q (4, n); values v, what is written, what is read (4, p)."""

    cos: Array
    sin: Array
    k: Array
    q: Array
    v: Array
    written: Array
    read: Array


@loop
def fill(tokens: Tokens, fixed: Fixed, state: State, h: int, start: int, count: int, rows: Rows) -> None:
    """The keys, queries and values of `count` tokens; rows that are left over hold zeros. Adds up the angles."""
    rank, groups = tokens.B.shape[1], tokens.B.shape[2]
    group = h // (len(tokens.step) // groups)
    rows.k[count * rank :], rows.q[count * rank :], rows.v[count * rank :] = _ZERO, _ZERO, _ZERO
    for i in range(count):
        t = start + i
        turn(state.angle[h], tokens.turns[t], tokens.step[h, t], rows.cos, rows.sin)
        for r in range(rank):
            a = i * rank + r
            turned(tokens.B[t, r, group], fixed.B_bias[h, r], rows.cos, rows.sin, fixed.neighbours, rows.k[a])
            turned(tokens.C[t, r, group], fixed.C_bias[h, r], rows.cos, rows.sin, fixed.neighbours, rows.q[a])
            values, x, up = rows.v[a], tokens.x[t, h], fixed.up[h, r]
            for p in range(x.size):
                values[p] = x[p] * up[p]


@loop
def go_on(tokens: Tokens, state: Array, h: int, start: int, count: int, rows: Rows) -> int:
    """Read the state of head h before the tokens with all queries, and bring it to their end. Returns the last kept
    token's place among them, or -1."""
    rank, latest = tokens.B.shape[1], -1
    for i in range(count):
        latest = i if tokens.keep[h, start + i] else latest
    if latest < 0:
        read(state, rows.q, rows.read)
        return latest
    rest = _ONE  # from after a token to the end
    for i in range(count - 1, -1, -1):
        t = start + i
        weight = rest * (tokens.own[h, t] + tokens.later[h, t])
        for a in range(i * rank, (i + 1) * rank):
            for p in range(rows.v.shape[1]):
                rows.written[a, p] = weight * rows.v[a, p]
        rest *= tokens.decay[h, t]
    rows.written[count * rank :] = _ZERO
    read_and_write(state, rows.q, rows.k, rest, rows.written, rows.read)
    return latest


@loop
def answer(tokens: Tokens, h: int, start: int, i: int, rows: Rows, to: Array) -> None:
    """What token i of the rows reads, to (r, p): the state before them, decayed, and their keys up to its own."""
    rank = len(to)
    decay, again = _ONE, False  # from after a key's token to token i; whether a kept token is among them
    for j in range(i, -1, -1):
        own = tokens.own[h, start + j]
        factor = decay * (own + tokens.later[h, start + j]) if again else own
        if tokens.keep[h, start + j]:
            for r in range(rank):
                for b in range(j * rank, (j + 1) * rank):
                    seen = factor * dot(rows.q[i * rank + r], rows.k[b])
                    for p in range(to.shape[1]):
                        to[r, p] += seen * rows.v[b, p]
        decay *= tokens.decay[h, start + j]
        again = again or tokens.keep[h, start + j]
    for r in range(rank):
        for p in range(to.shape[1]):
            to[r, p] += decay * rows.read[i * rank + r, p]


@loop
def take_out(weight: Any, k: Array, v: Array, up: Array, q: Array, to: Array) -> None:
    """Subtract from to (r, p) what queries q (r, n) read of keys k (r, n) with `weight`."""
    for r in range(len(to)):
        for s in range(len(k)):
            seen = weight * dot(q[r], k[s])
            for p in range(v.size):
                to[r, p] -= seen * v[p] * up[s, p]


@loop
def start_with(weight: Any, k: Array, v: Array, up: Array, state: Array) -> None:
    """Write keys k (r, n) with `weight` to state (p, n)."""
    for r in range(len(k)):
        for p in range(v.size):
            value, row = weight * v[p] * up[r, p], state[p]
            for n in range(row.size):
                row[n] += value * k[r, n]


@loop
def scan(tokens: Tokens, fixed: Fixed, state: State, first: Array, y: Array) -> None:
    """One sequence, at most four keys a token: first (h,), the weight with which the first kept token writes the key
    before all; y (l, h, r, p). Writes the state and y."""
    heads, width, size = state.ssm.shape
    length, rank = tokens.B.shape[:2]
    at_once = ROWS // rank
    rows = Rows(
        np.empty(state.angle.shape[1], np.float32), np.empty(state.angle.shape[1], np.float32),
        np.empty((ROWS, size), np.float32), np.empty((ROWS, size), np.float32),
        np.empty((ROWS, width), np.float32), np.empty((ROWS, width), np.float32), np.empty((ROWS, width), np.float32),
    )  # fmt: skip
    for h in range(heads):
        last_k, last_v, up = state.k[h], state.v[h], fixed.up[h]
        early = first[h]  # the second weight of the last kept key: in the state, and not yet to be read
        if early != _ZERO:
            start_with(early, last_k, last_v, up, state.ssm[h])
        for start in range(0, length, at_once):
            count = min(at_once, length - start)
            fill(tokens, fixed, state, h, start, count, rows)
            latest = go_on(tokens, state.ssm[h], h, start, count, rows)
            waiting = early != _ZERO
            for i in range(count):
                to = y[start + i, h]
                to[:] = _ZERO
                answer(tokens, h, start, i, rows, to)
                waiting = waiting and not tokens.keep[h, start + i]
                if waiting:
                    take_out(early, last_k, last_v, up, rows.q[i * rank : (i + 1) * rank], to)
            if latest >= 0:
                early = tokens.later[h, start + latest]
                last_k[:] = rows.k[latest * rank : (latest + 1) * rank]
                last_v[:] = tokens.x[start + latest, h]


@loop
def finish(y: Array, x: Array, z: Array, D: Array, up: Array, up_z: Array, down: Array, out: Array) -> None:
    """Skip, gate and projection back to one: y (l, h, r, p); x, z, out (l, h, p); D (h,); the rest (h, r, p)."""
    length, heads, rank, width = y.shape
    for t in range(length):
        for h in range(heads):
            to, x_row, z_row = out[t, h], x[t, h], z[t, h]
            for p in range(width):
                to[p] = _ZERO
            for r in range(rank):
                row, up_row, gate_row, down_row = y[t, h, r], up[h, r], up_z[h, r], down[h, r]
                for p in range(width):
                    to[p] += (row[p] + D[h] * x_row[p] * up_row[p]) * silu(z_row[p] * gate_row[p]) * down_row[p]
