"""The specification of both filtered scans: one token after the other, in plain array operations.

Everything faster in this package is tested against these two functions and means exactly the same; the tests
hold them to float64 oracles in NumPy (MLX's own float64 exp is only as exact as float32).

    raw_t   = dt_t + dt_bias                          float32, before the softplus
    keep_t  = raw_t > threshold                       strictly greater; per unit (channel or head)
    step_t  = clip(softplus(raw_t), *time_step_limit) where kept, else exactly 0
    h_t     = exp(step_t A) h_(t-1) + step_t B_t x_t
    y_t     = (C_t h_t + D x_t) silu(z_t)

A filtered token neither decays the state nor writes to it: exp(0) = 1 and 0 B x = 0. It still reads the state
and keeps its skip D x. (Mamba: arXiv 2312.00752, eq. 2 and 4; Mamba-2: arXiv 2405.21060, sec. 3; the filter:
LongMamba, arXiv 2504.16053, sec. 4.)

Letters: b batch, l tokens, d channels, h heads, p head width, g groups, n state size.
"""

from __future__ import annotations

import math

import mlx.core as mx

Limit = tuple[float, float]
Scan = tuple[mx.array, mx.array] | tuple[mx.array, mx.array, mx.array]


def softplus(x: mx.array) -> mx.array:
    """log(1 + exp(x)), accurate for very negative x (it tends to exp(x)) and exactly 0 at -inf."""
    return mx.logaddexp(x, mx.zeros_like(x))


def silu(x: mx.array) -> mx.array:
    """x * sigmoid(x)."""
    return x * mx.sigmoid(x)


def steps(
    dt: mx.array,
    dt_bias: mx.array | None,
    threshold: mx.array | None,
    limit: Limit,
) -> tuple[mx.array, mx.array]:
    """Filtered step sizes and what was kept. dt (b, l, u) raw; dt_bias, threshold (u,) -> both (b, l, u).

    The comparison is made before the softplus, in float32: thresholds taken from data tie with it, and only
    the raw sum (one IEEE addition) is the same number on every machine.
    """
    raw = dt.astype(mx.float32)
    if dt_bias is not None:
        raw = raw + dt_bias.astype(mx.float32)
    step = softplus(raw)
    if limit != (0.0, math.inf):
        step = mx.clip(step, limit[0], limit[1])
    if threshold is None:
        return step, mx.ones(step.shape, dtype=mx.bool_)
    keep = raw > threshold
    # After the clip: a lower limit above 0 would otherwise write the filtered tokens back in.
    return mx.where(keep, step, mx.zeros_like(step)), keep


def selective_scan(
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
    """Mamba-1's scan, sequentially. Shapes: x, dt, z (b, l, d); A (d, n); B, C (b, l, n); state (b, d, n)."""
    step, keep = steps(dt, dt_bias, threshold, time_step_limit)
    u, decay_rate, b_in, c_out = (array.astype(mx.float32) for array in (x, A, B, C))
    batch, length, channels = x.shape
    h = _start(initial_state, (batch, channels, A.shape[1]))
    outputs: list[mx.array] = [mx.array(0.0)] * length
    for t in _order(length, reverse):
        decay = mx.exp(step[:, t, :, None] * decay_rate)
        h = decay * h + (step[:, t] * u[:, t])[:, :, None] * b_in[:, t, None, :]
        outputs[t] = (h * c_out[:, t, None, :]).sum(axis=-1)
    y = _finish(mx.stack(outputs, axis=1), u, None if D is None else D.astype(mx.float32), z)
    return _result(y.astype(x.dtype), h, keep, return_kept)


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
    """Mamba-2's scan, sequentially. x, z (b, l, h, p); dt (b, l, h); A (h,); B, C (b, l, g, n)."""
    step, keep = steps(dt, dt_bias, threshold, time_step_limit)
    batch, length, heads, width = x.shape
    u, decay_rate = x.astype(mx.float32), A.astype(mx.float32)
    # Head i reads group i // (h / g), as in Mamba-2's grouped B and C (sec. 7.1).
    b_in, c_out = (mx.repeat(array.astype(mx.float32), heads // array.shape[2], axis=2) for array in (B, C))
    h = _start(initial_state, (batch, heads, width, B.shape[3]))
    outputs: list[mx.array] = [mx.array(0.0)] * length
    for t in _order(length, reverse):
        decay = mx.exp(step[:, t] * decay_rate)[:, :, None, None]
        write = (step[:, t, :, None] * u[:, t])[..., None] * b_in[:, t, :, None, :]
        h = decay * h + write
        outputs[t] = (h * c_out[:, t, :, None, :]).sum(axis=-1)
    y = _finish(mx.stack(outputs, axis=1), u, None if D is None else D.astype(mx.float32)[:, None], z)
    return _result(y.astype(x.dtype), h, keep, return_kept)


def _order(length: int, reverse: bool) -> range:
    return range(length - 1, -1, -1) if reverse else range(length)


def _start(initial_state: mx.array | None, shape: tuple[int, ...]) -> mx.array:
    return mx.zeros(shape, dtype=mx.float32) if initial_state is None else initial_state


def _finish(y: mx.array, u: mx.array, skip: mx.array | None, z: mx.array | None) -> mx.array:
    if skip is not None:
        y = y + skip * u
    return y if z is None else y * silu(z.astype(mx.float32))


def _result(y: mx.array, state: mx.array, keep: mx.array, return_kept: bool) -> Scan:
    if not return_kept:
        return y, state
    return y, state, keep.astype(mx.int32).sum(axis=-1)
