"""Compiled decode step of a layer on one token of one sequence, as one call: the whole layer (`mamba_layer`,
`mamba2_layer`) or, where several threads share its two products with d_model, all between these (`mamba`, `mamba2`).

Each step of decoding reads all weights, which leaves nothing else in a cache: small NumPy calls then wait for memory,
code and objects included, and took a third of the time of a token.

numba's cache of this file holds the code of `numba_loops` too, and is not rebuilt when only that changes: after a
change there remove __pycache__/*.nb[ic].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from longmamba_mlx.ops.cpu import numba_loops
from longmamba_mlx.ops.cpu.numpy_ops import Array, Counts
from longmamba_mlx.ops.inputs import DtRange


class MambaWeights(NamedTuple):
    """taps (k, d); bias, dt_bias, D (d,); x_proj (r + 2 n, d); dt_proj (d, r); A_log2e = A log2(e) (n, d)."""

    taps: Array
    bias: Array
    x_proj: Array
    dt_proj: Array
    dt_bias: Array
    A_log2e: Array
    D: Array


class Mamba2Weights(NamedTuple):
    """taps (k, c); bias (c,); dt_bias, A_log2e = A log2(e), D (h,); norm (d_inner,) and the
    options of `numpy_ops.gated_rms_norm`."""

    taps: Array
    bias: Array
    dt_bias: Array
    A_log2e: Array
    D: Array
    norm: Array
    groups: int
    eps: float
    norm_before_gate: bool


class LayerWeights(NamedTuple):
    """The weights of a layer around its mixer: norm (d_model,) and its eps; in_proj (w, d_model), out_proj (d_model,
    d_inner) and their biases, zeros where there are none."""

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
    layer: LayerWeights,
    window: Array,
    state: Array,
    threshold: Array,
    weights: MambaWeights,
    dt_range: DtRange,
    coefficients: tuple[np.float32, ...],
    out: Outputs,
) -> None:
    """hidden + out_proj(mamba(in_proj(norm(hidden)))), hidden (d_model,); the rest as in `mamba`."""
    mamba(_projected(hidden, layer), window, state, threshold, weights, dt_range, coefficients, out)
    _add(hidden, layer, out)


@numba_loops.loop
def mamba2_layer(
    hidden: Array,
    layer: LayerWeights,
    window: Array,
    state: Array,
    threshold: Array,
    weights: Mamba2Weights,
    dt_range: DtRange,
    coefficients: tuple[np.float32, ...],
    out: Outputs,
) -> None:
    """hidden + out_proj(mamba2(in_proj(norm(hidden)))), hidden (d_model,); the rest as in `mamba2`."""
    mamba2(_projected(hidden, layer), window, state, threshold, weights, dt_range, coefficients, out)
    _add(hidden, layer, out)


@numba_loops.loop
def mamba(
    projected: Array,
    window: Array,
    state: Array,
    threshold: Array,
    weights: MambaWeights,
    dt_range: DtRange,
    coefficients: tuple[np.float32, ...],
    out: Outputs,
) -> None:
    """projected (2 d,) by in_proj; window (k - 1, d); state (n, d), changed in place; threshold (d,), -inf where there
    is none; coefficients are `numba_loops.EXP2_COEFFICIENTS`."""
    size, width = state.shape
    x = _convolved(projected[:width], window, weights.taps, weights.bias, out.window)
    selection = np.empty(len(weights.x_proj), np.float32)
    numba_loops.product(weights.x_proj, x, selection)
    rank = selection.size - 2 * size
    raw = np.empty(width, np.float32)
    numba_loops.product(weights.dt_proj, selection[:rank], raw)
    dt = _filtered_dt(raw, weights.dt_bias, threshold, dt_range, out.kept)
    b, c, y = selection[rank : rank + size], selection[rank + size :], out.y.reshape(1, width)
    rows = dt.reshape(1, width), x.reshape(1, width), b.reshape(1, size), c.reshape(1, size)
    numba_loops.selective_scan(rows[0], rows[1], rows[2], rows[3], weights.D, y, weights.A_log2e, state, coefficients)
    numba_loops.gate(y, projected[width:].reshape(1, width))


@numba_loops.loop
def mamba2(
    projected: Array,
    window: Array,
    state: Array,
    threshold: Array,
    weights: Mamba2Weights,
    dt_range: DtRange,
    coefficients: tuple[np.float32, ...],
    out: Outputs,
) -> None:
    """projected (w,) by in_proj; window (k - 1, c); state (h, p, n), changed in place; threshold (h,), -inf where there
    is none; coefficients are `numba_loops.EXP2_COEFFICIENTS`."""
    heads, width, size = state.shape
    inner, channels = heads * width, weights.bias.size
    x_b_c = _convolved(projected[inner : inner + channels], window, weights.taps, weights.bias, out.window)
    dt = _filtered_dt(projected[inner + channels :], weights.dt_bias, threshold, dt_range, out.kept)
    decay = np.empty(heads, np.float32)
    for h in range(heads):
        decay[h] = numba_loops.exp2(dt[h] * weights.A_log2e[h], coefficients)
    groups = (channels - inner) // (2 * size)
    b_c = x_b_c[inner:].reshape(2, groups, size)
    x, y = x_b_c[:inner].reshape(heads, width), out.y.reshape(heads, width)
    numba_loops.ssd_token(dt, decay, x, b_c[0], b_c[1], weights.D, y, state)
    z = projected[:inner].reshape(1, inner)
    y = out.y.reshape(1, inner)
    numba_loops.gated_rms_norm(y, z, weights.norm, weights.groups, weights.eps, weights.norm_before_gate)


@numba_loops.loop
def _projected(hidden: Array, layer: LayerWeights) -> Array:
    """in_proj(norm(hidden)): (w,)."""
    normed, projected = np.empty_like(hidden), np.empty(len(layer.in_proj), np.float32)
    numba_loops.rms_norm(hidden.reshape(1, hidden.size), layer.norm, layer.eps, normed.reshape(1, hidden.size))
    numba_loops.product(layer.in_proj, normed, projected)
    projected += layer.in_bias
    return projected


@numba_loops.loop
def _add(hidden: Array, layer: LayerWeights, out: Outputs) -> None:
    """hidden plus out_proj of the mixer's output."""
    numba_loops.product(layer.out_proj, out.y, out.hidden)
    out.hidden[:] += hidden + layer.out_bias


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
def _filtered_dt(raw: Array, bias: Array, threshold: Array, dt_range: DtRange, kept: Counts) -> Array:
    """Filtered dt (u,) from raw dt (u,). Writes kept."""
    raw = raw + bias
    dt = np.empty_like(raw)
    numba_loops.filtered_dt(raw.reshape(1, raw.size), threshold, dt_range, dt.reshape(1, raw.size), kept)
    return dt
