"""The functions of `numpy_ops` through loops that numba compiles, for wide layers and long texts.

Import this module only where numba is installed. numba caches the compiled code on disk: only the first run waits for
it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from longmamba_mlx.ops.cpu import blas, numba_decode, numba_loops, numba_mamba3, numpy_ops
from longmamba_mlx.ops.cpu.numba_decode import LayerWeights, Mamba2Weights, MambaWeights, Outputs
from longmamba_mlx.ops.cpu.numpy_ops import Array, Counts
from longmamba_mlx.ops.inputs import DtRange

mamba3_loops = numba_mamba3


def rms_norm(x: Array, weight: Array | None, eps: float) -> Array:
    """As `numpy_ops.rms_norm`."""
    if weight is None:
        return numpy_ops.rms_norm(x, None, eps)
    normed = np.empty(x.shape, dtype=np.float32)
    numba_loops.rms_norm(_rows(x), weight, eps, _rows(normed))
    return normed


def gated_rms_norm(y: Array, z: Array, weight: Array, *, groups: int, eps: float, norm_before_gate: bool) -> Array:
    """As `numpy_ops.gated_rms_norm`."""
    normed = y.copy()
    numba_loops.gated_rms_norm(_rows(normed), _rows(z), weight, groups, eps, norm_before_gate)
    return normed


def gate(y: Array, z: Array) -> None:
    """As `numpy_ops.gate`."""
    numba_loops.gate(_rows(y), _rows(z))


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """As `numpy_ops.linear`."""
    if x.size > x.shape[-1] or not blas.has_one_thread() or not weight.flags.c_contiguous:
        return numpy_ops.linear(x, weight, bias)
    y = np.empty(len(weight), dtype=np.float32)
    numba_loops.product(weight, _rows(x)[0], y)
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], len(weight))


def causal_conv1d(x: Array, taps: Array, bias: Array | None, initial: Array | None) -> tuple[Array, Array]:
    """As `numpy_ops.causal_conv1d`."""
    padded = numpy_ops.padded(x, len(taps) - 1, initial)
    y = np.empty(x.shape, dtype=np.float32)
    added = _or_zeros(bias, x.shape[-1])
    for i in range(len(x)):
        numba_loops.convolve(padded[i], taps, added, y[i])
    return y, padded[:, x.shape[1] :].copy()


def filtered_dt(raw: Array, threshold: Array | None, dt_range: DtRange) -> tuple[Array, Counts]:
    """As `numpy_ops.filtered_dt`."""
    dt, kept = np.empty(raw.shape, dtype=np.float32), np.empty(raw.shape[:2], dtype=np.int32)
    numba_loops.filtered_dt(_rows(raw), _or_lowest(threshold, raw.shape[2]), dt_range, _rows(dt), kept.reshape(-1))
    if threshold is None:
        kept[:] = raw.shape[2]
    return dt, kept


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
    """As `numpy_ops.selective_scan`."""
    y = np.empty(x.shape, dtype=np.float32)
    D, A_log2e = _or_zeros(D, x.shape[2]), times_log2e(A)
    for i in range(len(x)):
        now = (i, slice(None, None, -1 if reverse else 1))
        dt_i, x_i, B_i, C_i = (np.ascontiguousarray(array[now]) for array in (dt, x, B, C))
        numba_loops.selective_scan(dt_i, x_i, B_i, C_i, D, y[now], A_log2e, state[i], numba_loops.EXP2_COEFFICIENTS)
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
    """As `numpy_ops.ssd_scan`."""
    y = np.empty(x.shape, dtype=np.float32)
    D = _or_zeros(D, x.shape[2])
    for i in range(len(x)):
        now = (i, slice(None, None, -1 if reverse else 1))
        dt_i, x_i, B_i, C_i = (np.ascontiguousarray(array[now]) for array in (dt, x, B, C))
        numba_loops.ssd_scan(dt_i, np.exp(dt_i * A), x_i, B_i, C_i, D, y[now], state[i])
    return y


def mamba_layer(
    hidden: Array,
    layer: LayerWeights,
    window: Array,
    state: Array,
    threshold: Array | None,
    weights: MambaWeights,
    dt_range: DtRange,
) -> Outputs:
    """Run a Mamba-1 layer on one token of one sequence. hidden (d_model,); window (k - 1, d); state (n, d), changed in
    place; threshold (d,)."""
    units = weights.D.size
    out = _outputs(hidden, window, units)
    rest = window, state, _or_lowest(threshold, units), weights, dt_range, numba_loops.EXP2_COEFFICIENTS, out
    return _run(hidden, layer, numba_decode.mamba_layer, numba_decode.mamba, rest)


def mamba2_layer(
    hidden: Array,
    layer: LayerWeights,
    window: Array,
    state: Array,
    threshold: Array | None,
    weights: Mamba2Weights,
    dt_range: DtRange,
) -> Outputs:
    """Run a Mamba-2 layer on one token of one sequence. hidden (d_model,); window (k - 1, c); state (h, p, n), changed
    in place; threshold (h,)."""
    out = _outputs(hidden, window, weights.norm.size)
    rest = window, state, _or_lowest(threshold, len(state)), weights, dt_range, numba_loops.EXP2_COEFFICIENTS, out
    return _run(hidden, layer, numba_decode.mamba2_layer, numba_decode.mamba2, rest)


def _run(
    hidden: Array, layer: LayerWeights, whole: Callable[..., None], inner: Callable[..., None], rest: tuple[Any, ...]
) -> Outputs:
    """Run a layer as one compiled call or, where several threads share its products with d_model, around `inner`."""
    out: Outputs = rest[-1]
    if blas.has_one_thread():
        whole(hidden, layer, *rest)
    else:
        normed = rms_norm(hidden, layer.norm, layer.eps)
        inner(linear(normed, layer.in_proj, layer.in_bias), *rest)
        np.add(hidden, linear(out.y, layer.out_proj, layer.out_bias), out=out.hidden)
    return out


def _outputs(hidden: Array, window: Array, width: int) -> Outputs:
    y, kept = np.empty(width, dtype=np.float32), np.empty(1, dtype=np.int32)
    return Outputs(np.empty_like(hidden), np.empty_like(window), y, kept)


def times_log2e(A: Array) -> Array:
    """A log2(e), with which exp(dt A) is a power of 2: as the loops and `MambaWeights` take it."""
    return A * np.float32(math.log2(math.e))


def _or_zeros(given: Array | None, width: int) -> Array:
    return np.zeros(width, dtype=np.float32) if given is None else given


def _or_lowest(threshold: Array | None, units: int) -> Array:
    return _lowest(units) if threshold is None else threshold


@lru_cache
def _lowest(units: int) -> Array:
    """Thresholds that filter nothing."""
    return np.full(units, -np.inf, dtype=np.float32)


def _rows(x: Array) -> Array:
    """x (..., c) as (rows, c) in C order, without a copy where possible."""
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])
