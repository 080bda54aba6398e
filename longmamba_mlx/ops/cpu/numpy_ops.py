"""The ops on NumPy arrays: float32 in, float32 out. `bridge` wraps them for MLX arrays.

On MLX's Linux wheel matrix products go to a reference BLAS and exp to one element at a time; NumPy's OpenBLAS
and vector exp are 10 to 30 times faster. The meaning is `reference`'s. State arrays are changed in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.ops.cpu import blas
from longmamba_mlx.ops.inputs import UNBOUNDED, DtRange

Array = NDArray[np.float32]
Counts = NDArray[np.int32]

# Tokens in a block of the SSD form; bytes of decay matrices, and of Mamba-1 states, worked on at once. All
# chosen so that temporaries stay in a core's cache: beyond it, fresh pages cost more than the arithmetic.
_BLOCK = 32
_SPAN_BYTES = 1 << 19
_STATE_BYTES = 1 << 18
_ONE = np.float32(1.0)

mamba3_loops = None  # Mamba-3's scan in NumPy is `cpu.mamba3`


def softplus(x: Array) -> Array:
    """log(1 + exp(x)) to a few units in the last place, exactly 0 at -inf (NumPy's log1p is slow)."""
    u = np.abs(x)
    np.negative(u, out=u)
    np.exp(u, out=u)
    w = u + _ONE
    # log(w) misses what rounding 1 + u lost; to first order that is (u - (w - 1)) / w.
    u -= w - _ONE
    u /= w
    u += np.log(w)
    u += np.maximum(x, np.float32(0.0))
    return u


def silu(x: Array) -> Array:
    """x * sigmoid(x) as a new array."""
    s = np.negative(x)
    with np.errstate(over="ignore"):
        np.exp(s, out=s)
    s += _ONE
    np.divide(x, s, out=s)
    return s


def rms_norm(x: Array, weight: Array | None, eps: float) -> Array:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis."""
    mean = np.einsum("...c,...c->...", x, x)[..., None] / np.float32(x.shape[-1])
    mean += np.float32(eps)
    np.sqrt(mean, out=mean)
    normed: Array = x / mean
    if weight is not None:
        normed *= weight
    return normed


def gated_rms_norm(y: Array, z: Array, weight: Array, *, groups: int, eps: float, norm_before_gate: bool) -> Array:
    """As `norm.gated_rms_norm`."""
    gate = silu(z)
    value = y if norm_before_gate else np.multiply(y, gate)
    split = value.reshape(*value.shape[:-1], groups, -1)
    normed = rms_norm(split, None, eps).reshape(value.shape)
    normed *= weight
    if norm_before_gate:
        normed *= gate
    return normed


def gate(y: Array, z: Array) -> None:
    """y *= silu(z)."""
    y *= silu(z)


def parts(x: Array, *widths: int) -> tuple[Array, ...]:
    """Split x (..., c) into views of these widths, in a third of the time of np.split."""
    ends = tuple(accumulate(widths))
    return tuple(x[..., end - width : end] for end, width in zip(ends, widths, strict=True))


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x (..., i) times weight (o, i) transposed, plus bias (o,), as one matrix product."""
    rows = x.reshape(-1, x.shape[-1])
    if len(rows) > 1:
        y: Array = np.matmul(rows, weight.T)
    else:  # decoding
        y = np.vecdot(weight, rows[0]) if blas.dots_read_faster() else np.matmul(weight, rows[0])
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[0])


def causal_conv1d(x: Array, taps: Array, bias: Array | None, initial: Array | None) -> tuple[Array, Array]:
    """As `conv.causal_conv1d`, with the weight transposed to taps (k, c)."""
    length, inputs = x.shape[1], padded(x, len(taps) - 1, initial)
    y = inputs[:, :length] * taps[0]
    term = np.empty_like(y)
    for tap in range(1, len(taps)):
        y += np.multiply(inputs[:, tap : tap + length], taps[tap], out=term)
    if bias is not None:
        y += bias
    return silu(y), inputs[:, length:].copy()


def padded(x: Array, before: int, initial: Array | None) -> Array:
    """x (b, l, c) with `before` rows in front of it: those of `initial` (b, before, c), or zeros."""
    batch, length, channels = x.shape
    rows = np.empty((batch, before + length, channels), dtype=np.float32)
    rows[:, :before] = 0.0 if initial is None else initial
    rows[:, before:] = x
    return rows


def filtered_dt(raw: Array, threshold: Array | None, dt_range: DtRange) -> tuple[Array, Counts]:
    """Discretise raw = dt + dt_bias (b, l, u): softplus, clipped, and 0 where raw is not above threshold (u,)
    (LongMamba, sec. 4.2). Returns dt and how many units kept each token (b, l)."""
    dt = softplus(raw)
    if dt_range != UNBOUNDED:
        np.clip(dt, np.float32(dt_range[0]), np.float32(dt_range[1]), out=dt)
    if threshold is None:
        return dt, np.full(raw.shape[:2], raw.shape[2], dtype=np.int32)
    keep = raw > threshold
    # Not np.where: it branches at each value, which cost more than all else of the filter where units differ.
    return np.multiply(dt, keep, out=dt), keep.sum(axis=-1, dtype=np.int32)


def selective_scan(
    x: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    state: Array,
    D: Array | None = None,
    *,
    reverse: bool = False,
) -> Array:
    """Mamba-1's recurrence: bulk exp for a few tokens, then two in-place operations a token.

    x, dt (b, l, d); A (n, d); B, C (b, l, n); state (b, n, d), changed in place; D (d,)
    -> y (b, l, d). A is transposed, so that the long axis, the channels, is the last one throughout.
    """
    y = np.empty(x.shape, dtype=np.float32)
    for i in range(len(x)):
        now = (i, slice(None, None, -1 if reverse else 1))
        _scan_one(dt[now], x[now], B[now], C[now], y[now], A, state[i])
    if D is not None:
        y += x * D
    return y


def _scan_one(dt: Array, x: Array, B: Array, C: Array, y: Array, A: Array, state: Array) -> None:
    """One sequence: dt, x, y (l, d); B, C (l, n); A, state (n, d). Writes y and state.

    A channel whose dt is 0 throughout a block stands still, and its y is one matrix product: of a global channel the
    filter keeps one token in hundreds.
    """
    length = len(dt)
    block = max(1, min(64, length, _STATE_BYTES // max(1, state.nbytes)))
    for start in range(0, length, block):
        now = slice(start, start + block)
        moving = dt[now].any(axis=0)
        if 2 * np.count_nonzero(moving) > moving.size:
            y[now] = _moved(dt[now], x[now], B[now], C[now], A, state)
            continue
        y[now] = np.matmul(C[now], state)
        some = np.flatnonzero(moving)
        if some.size:
            part = state[:, some]
            y[now, some] = _moved(dt[now, some], x[now, some], B[now], C[now], A[:, some], part)
            state[:, some] = part


def _moved(dt: Array, x: Array, B: Array, C: Array, A: Array, state: Array) -> Array:
    """y (l, d) of one block, all states of which are in memory at once. Writes state."""
    decay = dt[:, None, :] * A
    np.exp(decay, out=decay)
    states = (dt * x)[:, None, :] * B[:, :, None]
    last = state
    for decayed, new in zip(decay, states, strict=True):
        np.multiply(decayed, last, out=decayed)
        np.add(new, decayed, out=new)
        last = new
    state[:] = last
    y: Array = np.matmul(C[:, None, :], states)[:, 0]
    return y


def ssd_scan(
    x: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    state: Array,
    D: Array | None = None,
    *,
    reverse: bool = False,
) -> Array:
    """Mamba-2's recurrence in blocks (arXiv 2405.21060, sec. 6; `chunked_ssd` has the same form in MLX).

    x (b, l, h, p); dt (b, l, h); A (h,); B, C (b, l, g, n); state (b, h, p, n), changed in place;
    D (h,) -> y (b, l, h, p).
    """
    y = np.empty(x.shape, dtype=np.float32)
    length, heads = x.shape[1:3]
    for i in range(len(x)):
        if length == 1:  # decoding
            y[i, 0] = _ssd_step(dt[i, 0], x[i, 0], B[i, 0], C[i, 0], A, state[i])
            continue
        rows = tuple(array[i, ::-1] if reverse else array[i] for array in (dt, x, B, C, y))
        for part, block in _spans(length, heads):
            now_dt, now_x, now_B, now_C, now_y = (array[part] for array in rows)
            _ssd_blocks(now_dt, now_x, now_B, now_C, now_y, A, state[i], block)
    if D is not None:
        y += x * D[:, None]
    return y


def _ssd_step(dt: Array, x: Array, B: Array, C: Array, A: Array, state: Array) -> Array:
    """One token: dt (h,); x (h, p); B, C (g, n) -> y (h, p). Writes state."""
    heads, width, size = state.shape
    grouped = state.reshape(len(B), -1, size)
    state *= np.exp(dt * A)[:, None, None]
    grouped += np.multiply((x * dt[:, None]).reshape(len(B), -1, 1), B[:, None, :])
    y: Array = np.matmul(grouped, C[:, :, None])
    return y.reshape(heads, width)


def _spans(length: int, heads: int) -> Iterator[tuple[slice, int]]:
    """Stretches of whole blocks that fit the cache, then one shorter block for what is left over."""
    span = _BLOCK * max(1, _SPAN_BYTES // (8 * heads * _BLOCK * _BLOCK))
    whole = length - length % _BLOCK
    for start in range(0, whole, span):
        yield slice(start, min(start + span, whole)), _BLOCK
    if whole < length:
        yield slice(whole, length), length - whole


def _ssd_blocks(dt: Array, x: Array, B: Array, C: Array, y: Array, A: Array, state: Array, block: int) -> None:
    """k blocks of q tokens: dt (kq, h); x, y (kq, h, p); B, C (kq, g, n). Writes y and state."""
    heads, width, size = state.shape
    groups = B.shape[1]
    count = len(dt) // block
    by_head = (x * dt[:, :, None]).reshape(count, block, heads, width).swapaxes(1, 2)
    B_blocks = B.reshape(count, block, groups, size).swapaxes(1, 2)
    C_blocks = C.reshape(count, block, groups, size).swapaxes(1, 2)

    # Running sums in float64: their differences keep every bit that float32 can show. (k, h, q)
    dt_A = (dt * A).reshape(count, block, heads)
    sums = np.ascontiguousarray(np.cumsum(dt_A, axis=1, dtype=np.float64).swapaxes(1, 2))
    inside = (sums[:, :, :, None] - sums[:, :, None, :]).astype(np.float32)
    inside += above_diagonal(block)
    np.exp(inside, out=inside)
    to_end = inside[:, :, -1, :, None].copy()
    scores = np.matmul(C_blocks, B_blocks.swapaxes(2, 3))
    weights = inside.reshape(count, groups, -1, block, block)
    weights *= scores[:, :, None]
    near = np.matmul(inside, by_head)

    ended = (by_head * to_end).swapaxes(1, 2).reshape(count, block, groups, -1)
    added = np.matmul(ended.transpose(0, 2, 3, 1), B_blocks).reshape(count, heads, width, size)
    before = np.empty_like(added)
    decay = np.exp(sums[:, :, -1]).astype(np.float32)[:, :, None, None]
    for k in range(count):
        before[k] = state
        state *= decay[k]
        state += added[k]
    far = np.matmul(C_blocks, before.reshape(count, groups, -1, size).swapaxes(2, 3))
    far = far.swapaxes(1, 2).reshape(count, block, heads, width)
    far *= np.exp(sums).astype(np.float32).swapaxes(1, 2)[..., None]
    far += near.swapaxes(1, 2)
    y[:] = far.reshape(y.shape)


@lru_cache(maxsize=64)
def above_diagonal(block: int) -> Array:
    """-inf above the diagonal, 0 elsewhere: added before exp, so that no later token is ever read."""
    return np.triu(np.full((block, block), -np.inf, dtype=np.float32), 1)
