"""Independent float64 oracles: the recurrences of the papers, one token and one unit at a time, in NumPy."""

from __future__ import annotations

import math
from itertools import pairwise

import mlx.core as mx
import numpy as np


def as64(array: mx.array | None) -> np.ndarray | None:
    """An MLX array's exact values in float64."""
    return None if array is None else np.array(array.astype(mx.float32)).astype(np.float64)


def softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def filtered_steps(dt, dt_bias, threshold, limit):
    """dt (b, l, u) -> steps in float64, kept mask; what is compared is one float32 addition."""
    raw32 = dt.astype(np.float32)
    if dt_bias is not None:
        raw32 = raw32 + dt_bias.astype(np.float32)
    raw = dt if dt_bias is None else dt + dt_bias
    step = np.minimum(np.maximum(softplus(raw), limit[0]), limit[1])
    kept = np.ones(raw.shape, bool) if threshold is None else raw32 > threshold.astype(np.float32)
    return np.where(kept, step, 0.0), kept


def selective_scan(
    x,
    dt,
    A,
    B,
    C,
    D=None,
    z=None,
    dt_bias=None,
    threshold=None,
    initial_state=None,
    time_step_limit=(0.0, math.inf),
    reverse=False,
    return_kept=True,
):
    x, dt, A, B, C, D, z, dt_bias, threshold, initial_state = map(
        as64, (x, dt, A, B, C, D, z, dt_bias, threshold, initial_state)
    )
    batch, length, channels = x.shape
    step, kept = filtered_steps(dt, dt_bias, threshold, time_step_limit)
    state = np.zeros((batch, channels, A.shape[1])) if initial_state is None else initial_state.copy()
    y = np.zeros_like(x)
    for i in range(batch):
        for t in reversed(range(length)) if reverse else range(length):
            for c in range(channels):
                state[i, c] = np.exp(step[i, t, c] * A[c]) * state[i, c] + step[i, t, c] * B[i, t] * x[i, t, c]
                y[i, t, c] = state[i, c] @ C[i, t]
    y = y if D is None else y + D * x
    return (y if z is None else y * silu(z)), state, kept.sum(-1)


def ssd_scan(
    x,
    dt,
    A,
    B,
    C,
    D=None,
    z=None,
    dt_bias=None,
    threshold=None,
    initial_state=None,
    time_step_limit=(0.0, math.inf),
    reverse=False,
    return_kept=True,
):
    x, dt, A, B, C, D, z, dt_bias, threshold, initial_state = map(
        as64, (x, dt, A, B, C, D, z, dt_bias, threshold, initial_state)
    )
    batch, length, heads, width = x.shape
    groups = B.shape[2]
    step, kept = filtered_steps(dt, dt_bias, threshold, time_step_limit)
    shape = (batch, heads, width, B.shape[3])
    state = np.zeros(shape) if initial_state is None else initial_state.copy()
    y = np.zeros_like(x)
    for i in range(batch):
        for t in reversed(range(length)) if reverse else range(length):
            for h in range(heads):
                g = h * groups // heads
                write = step[i, t, h] * np.outer(x[i, t, h], B[i, t, g])
                state[i, h] = math.exp(step[i, t, h] * A[h]) * state[i, h] + write
                y[i, t, h] = state[i, h] @ C[i, t, g]
    y = y if D is None else y + D[:, None] * x
    return (y if z is None else y * silu(z)), state, kept.sum(-1)


def causal_conv1d(x, weight, bias=None, initial=None):
    x, weight, bias, initial = map(as64, (x, weight, bias, initial))
    batch, length, channels = x.shape
    taps = weight.shape[1]
    before = np.zeros((batch, taps - 1, channels)) if initial is None else initial
    padded = np.concatenate([before, x], axis=1)
    y = np.zeros_like(x)
    for t in range(length):
        y[:, t] = np.einsum("bkc,ck->bc", padded[:, t : t + taps], weight)
    return silu(y if bias is None else y + bias), padded[:, length:]


def part_norms(x, sizes, eps, weights=None):
    x = as64(x)
    ends = np.cumsum((0, *sizes))
    parts = [x[..., start:stop] for start, stop in pairwise(ends)]
    scales = [1.0] * 3 if weights is None else map(as64, weights)
    return [
        part / np.sqrt((part**2).mean(-1, keepdims=True) + eps) * scale
        for part, scale in zip(parts, scales, strict=True)
    ]
