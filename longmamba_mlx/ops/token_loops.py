"""What a layer does to one token of one sequence between its two products with d_model, as one compiled call.

Each step of decoding reads all weights, which leaves nothing else in a cache: twenty small NumPy calls a layer then
wait for memory, code and objects included, and took a seventh of the time of a token.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from longmamba_mlx.ops import loops
from longmamba_mlx.ops.arrays import Array, Counts


class MambaWeights(NamedTuple):
    """taps (k, d); bias, dt_bias, skip (d,); x_proj (r + 2 n, d); dt_proj (d, r); exponents = rate / ln 2 (n, d)."""

    taps: Array
    bias: Array
    x_proj: Array
    dt_proj: Array
    dt_bias: Array
    exponents: Array
    skip: Array


class Mamba2Weights(NamedTuple):
    """taps (k, c); bias (c,); dt_bias, exponents = rate / ln 2, skip (h,); norm (d_inner,)."""

    taps: Array
    bias: Array
    dt_bias: Array
    exponents: Array
    skip: Array
    norm: Array


class Norm(NamedTuple):
    """How Mamba-2's output is normed: `arrays.gated_rms_norm`."""

    groups: int
    eps: float
    norm_before_gate: bool


class Outputs(NamedTuple):
    """Arrays to write into: the next window (k - 1, c), y (d_inner,), how many units kept the token (1,)."""

    window: Array
    y: Array
    kept: Counts


@loops.loop
def mamba(
    projected: Array,
    window: Array,
    state: Array,
    threshold: Array,
    weights: MambaWeights,
    limit: tuple[float, float],
    terms: tuple[np.float32, ...],
    out: Outputs,
) -> None:
    """projected (2 d,) by in_proj; window (k - 1, d); state (n, d), changed in place; threshold (d,), -inf where there
    is none; terms are `loops.TERMS`."""
    size, width = state.shape
    u = _convolved(projected[:width], window, weights.taps, weights.bias, out.window)
    selection = np.empty(len(weights.x_proj), np.float32)
    loops.product(weights.x_proj, u, selection)
    rank = selection.size - 2 * size
    dt = np.empty(width, np.float32)
    loops.product(weights.dt_proj, selection[:rank], dt)
    step = _steps(dt, weights.dt_bias, threshold, limit, out.kept)
    b, c, y = selection[rank : rank + size], selection[rank + size :], out.y.reshape(1, width)
    rows = step.reshape(1, width), u.reshape(1, width), b.reshape(1, size), c.reshape(1, size)
    loops.selective_scan(rows[0], rows[1], rows[2], rows[3], weights.skip, y, weights.exponents, state, terms)
    loops.gate(y, projected[width:].reshape(1, width))


@loops.loop
def mamba2(
    projected: Array,
    window: Array,
    state: Array,
    threshold: Array,
    weights: Mamba2Weights,
    norm: Norm,
    limit: tuple[float, float],
    terms: tuple[np.float32, ...],
    out: Outputs,
) -> None:
    """projected (w,) by in_proj; window (k - 1, c); state (h, p, n), changed in place; threshold (h,), -inf where there
    is none; terms are `loops.TERMS`."""
    heads, width, size = state.shape
    inner, channels = heads * width, weights.bias.size
    x_b_c = _convolved(projected[inner : inner + channels], window, weights.taps, weights.bias, out.window)
    step = _steps(projected[inner + channels :], weights.dt_bias, threshold, limit, out.kept)
    decay = np.empty(heads, np.float32)
    for h in range(heads):
        decay[h] = loops.exp2(step[h] * weights.exponents[h], terms)
    groups = (channels - inner) // (2 * size)
    b_c = x_b_c[inner:].reshape(2, groups, size)
    u, y = x_b_c[:inner].reshape(heads, width), out.y.reshape(heads, width)
    loops.ssd_token(step, decay, u, b_c[0], b_c[1], weights.skip, y, state)
    z = projected[:inner].reshape(1, inner)
    loops.gated_rms_norm(out.y.reshape(1, inner), z, weights.norm, norm.groups, norm.eps, norm.norm_before_gate)


@loops.loop
def _convolved(x: Array, window: Array, taps: Array, bias: Array, after: Array) -> Array:
    """x (c,) convolved after window (k - 1, c): (c,). Writes the next window."""
    padded = np.empty(taps.shape, np.float32)
    padded[:-1] = window
    padded[-1] = x
    after[:] = padded[1:]
    result = np.empty(x.size, np.float32)
    loops.convolve(padded, taps, bias, result.reshape(1, x.size))
    return result


@loops.loop
def _steps(dt: Array, bias: Array, threshold: Array, limit: tuple[float, float], kept: Counts) -> Array:
    """Filtered step sizes (u,) from dt (u,). Writes kept."""
    raw = dt + bias
    step = np.empty_like(raw)
    loops.steps(raw.reshape(1, raw.size), threshold, limit, step.reshape(1, raw.size), kept)
    return step
