"""What a layer does to one token of one sequence, as one compiled call: all of it (`mamba_layer`, `mamba2_layer`) or,
where several threads share its two products with d_model, what lies between these (`mamba`, `mamba2`).

Each step of decoding reads all weights, which leaves nothing else in a cache: small NumPy calls then wait for memory,
code and objects included, and took a third of the time of a token.

What numba keeps on disk of this file holds the code of `loops` too, and is not made anew when only that changes: after
a change there remove __pycache__/*.nb[ic].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from longmamba_mlx.ops.cpu import numba_loops
from longmamba_mlx.ops.cpu.numpy_ops import Array, Counts


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
    """taps (k, c); bias (c,); dt_bias, exponents = rate / ln 2, skip (h,); norm (d_inner,) and what
    `arrays.gated_rms_norm` takes with it."""

    taps: Array
    bias: Array
    dt_bias: Array
    exponents: Array
    skip: Array
    norm: Array
    groups: int
    eps: float
    norm_before_gate: bool


class Around(NamedTuple):
    """What lies around a mixer: norm (d_model,) and its eps; in_proj (w, d_model), out_proj (d_model, d_inner) and
    their biases, zeros where there are none."""

    norm: Array
    eps: float
    in_proj: Array
    in_bias: Array
    out_proj: Array
    out_bias: Array


class Outputs(NamedTuple):
    """Arrays to write into: the residual stream after the layer (d_model,), the next window (k - 1, c), y (d_inner,),
    how many units kept the token (1,)."""

    hidden: Array
    window: Array
    y: Array
    kept: Counts


@numba_loops.loop
def mamba_layer(
    hidden: Array,
    around: Around,
    window: Array,
    state: Array,
    threshold: Array,
    weights: MambaWeights,
    limit: tuple[float, float],
    terms: tuple[np.float32, ...],
    out: Outputs,
) -> None:
    """hidden + out_proj(mamba(in_proj(norm(hidden)))), hidden (d_model,); the rest as in `mamba`."""
    mamba(_projected(hidden, around), window, state, threshold, weights, limit, terms, out)
    _add(hidden, around, out)


@numba_loops.loop
def mamba2_layer(
    hidden: Array,
    around: Around,
    window: Array,
    state: Array,
    threshold: Array,
    weights: Mamba2Weights,
    limit: tuple[float, float],
    terms: tuple[np.float32, ...],
    out: Outputs,
) -> None:
    """hidden + out_proj(mamba2(in_proj(norm(hidden)))), hidden (d_model,); the rest as in `mamba2`."""
    mamba2(_projected(hidden, around), window, state, threshold, weights, limit, terms, out)
    _add(hidden, around, out)


@numba_loops.loop
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
    is none; terms are `numba_loops.TERMS`."""
    size, width = state.shape
    u = _convolved(projected[:width], window, weights.taps, weights.bias, out.window)
    selection = np.empty(len(weights.x_proj), np.float32)
    numba_loops.product(weights.x_proj, u, selection)
    rank = selection.size - 2 * size
    dt = np.empty(width, np.float32)
    numba_loops.product(weights.dt_proj, selection[:rank], dt)
    step = _steps(dt, weights.dt_bias, threshold, limit, out.kept)
    b, c, y = selection[rank : rank + size], selection[rank + size :], out.y.reshape(1, width)
    rows = step.reshape(1, width), u.reshape(1, width), b.reshape(1, size), c.reshape(1, size)
    numba_loops.selective_scan(rows[0], rows[1], rows[2], rows[3], weights.skip, y, weights.exponents, state, terms)
    numba_loops.gate(y, projected[width:].reshape(1, width))


@numba_loops.loop
def mamba2(
    projected: Array,
    window: Array,
    state: Array,
    threshold: Array,
    weights: Mamba2Weights,
    limit: tuple[float, float],
    terms: tuple[np.float32, ...],
    out: Outputs,
) -> None:
    """projected (w,) by in_proj; window (k - 1, c); state (h, p, n), changed in place; threshold (h,), -inf where there
    is none; terms are `numba_loops.TERMS`."""
    heads, width, size = state.shape
    inner, channels = heads * width, weights.bias.size
    x_b_c = _convolved(projected[inner : inner + channels], window, weights.taps, weights.bias, out.window)
    step = _steps(projected[inner + channels :], weights.dt_bias, threshold, limit, out.kept)
    decay = np.empty(heads, np.float32)
    for h in range(heads):
        decay[h] = numba_loops.exp2(step[h] * weights.exponents[h], terms)
    groups = (channels - inner) // (2 * size)
    b_c = x_b_c[inner:].reshape(2, groups, size)
    u, y = x_b_c[:inner].reshape(heads, width), out.y.reshape(heads, width)
    numba_loops.ssd_token(step, decay, u, b_c[0], b_c[1], weights.skip, y, state)
    z = projected[:inner].reshape(1, inner)
    y = out.y.reshape(1, inner)
    numba_loops.gated_rms_norm(y, z, weights.norm, weights.groups, weights.eps, weights.norm_before_gate)


@numba_loops.loop
def _projected(hidden: Array, around: Around) -> Array:
    """in_proj(norm(hidden)): (w,)."""
    normed, projected = np.empty_like(hidden), np.empty(len(around.in_proj), np.float32)
    numba_loops.rms_norm(hidden.reshape(1, hidden.size), around.norm, around.eps, normed.reshape(1, hidden.size))
    numba_loops.product(around.in_proj, normed, projected)
    projected += around.in_bias
    return projected


@numba_loops.loop
def _add(hidden: Array, around: Around, out: Outputs) -> None:
    """hidden plus out_proj of the mixer's output."""
    numba_loops.product(around.out_proj, out.y, out.hidden)
    out.hidden[:] += hidden + around.out_bias


@numba_loops.loop
def _convolved(x: Array, window: Array, taps: Array, bias: Array, after: Array) -> Array:
    """x (c,) convolved after window (k - 1, c): (c,). Writes the next window."""
    padded = np.empty(taps.shape, np.float32)
    padded[:-1] = window
    padded[-1] = x
    after[:] = padded[1:]
    result = np.empty(x.size, np.float32)
    numba_loops.convolve(padded, taps, bias, result.reshape(1, x.size))
    return result


@numba_loops.loop
def _steps(dt: Array, bias: Array, threshold: Array, limit: tuple[float, float], kept: Counts) -> Array:
    """Filtered step sizes (u,) from dt (u,). Writes kept."""
    raw = dt + bias
    step = np.empty_like(raw)
    numba_loops.steps(raw.reshape(1, raw.size), threshold, limit, step.reshape(1, raw.size), kept)
    return step
