"""The functions of `arrays` for wide layers, through loops that numba compiles; the meanings are those of `arrays`.

Import this module only where numba is installed. Compiled code is kept on disk by numba, so only the first run ever
waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from longmamba_mlx.ops.cpu import numba_decode, numba_loops, numpy_ops
from longmamba_mlx.ops.cpu.numba_decode import Around, Mamba2Weights, MambaWeights, Outputs
from longmamba_mlx.ops.cpu.numpy_ops import Array, Counts, Limit


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
    """As `numpy_ops.linear`. Two threads of a BLAS together read a matrix faster than one compiled loop."""
    if x.size > x.shape[-1] or not _one_thread() or not weight.flags.c_contiguous:
        return numpy_ops.linear(x, weight, bias)
    y = np.empty(len(weight), dtype=np.float32)
    numba_loops.product(weight, _rows(x)[0], y)
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], len(weight))


@lru_cache(maxsize=1)
def _one_thread() -> bool:
    return all(library["num_threads"] == 1 for library in numpy_ops.blas_libraries().info())


def causal_conv1d(x: Array, taps: Array, bias: Array | None, initial: Array | None) -> tuple[Array, Array]:
    """As `numpy_ops.causal_conv1d`."""
    padded = numpy_ops.padded(x, len(taps) - 1, initial)
    y = np.empty(x.shape, dtype=np.float32)
    added = _or_zeros(bias, x.shape[-1])
    for i in range(len(x)):
        numba_loops.convolve(padded[i], taps, added, y[i])
    return y, padded[:, x.shape[1] :].copy()


def steps(raw: Array, threshold: Array | None, limit: Limit) -> tuple[Array, Counts]:
    """As `numpy_ops.steps`."""
    step, kept = np.empty(raw.shape, dtype=np.float32), np.empty(raw.shape[:2], dtype=np.int32)
    numba_loops.steps(_rows(raw), _or_lowest(threshold, raw.shape[2]), limit, _rows(step), kept.reshape(-1))
    if threshold is None:
        kept[:] = raw.shape[2]
    return step, kept


def selective_scan(
    u: Array,
    step: Array,
    rate: Array,
    b_in: Array,
    c_out: Array,
    state: Array,
    skip: Array | None = None,
    *,
    reverse: bool = False,
) -> Array:
    """As `numpy_ops.selective_scan`."""
    y = np.empty(u.shape, dtype=np.float32)
    skips, powers = _or_zeros(skip, u.shape[2]), exponents(rate)
    for i in range(len(u)):
        now = (i, slice(None, None, -1 if reverse else 1))
        steps, inputs, b, c = (np.ascontiguousarray(array[now]) for array in (step, u, b_in, c_out))
        numba_loops.selective_scan(steps, inputs, b, c, skips, y[now], powers, state[i], numba_loops.TERMS)
    return y


def ssd_scan(
    u: Array,
    step: Array,
    rate: Array,
    b_in: Array,
    c_out: Array,
    state: Array,
    skip: Array | None = None,
    *,
    reverse: bool = False,
) -> Array:
    """As `numpy_ops.ssd_scan`."""
    y = np.empty(u.shape, dtype=np.float32)
    skips = _or_zeros(skip, u.shape[2])
    for i in range(len(u)):
        now = (i, slice(None, None, -1 if reverse else 1))
        steps, inputs, b, c = (np.ascontiguousarray(array[now]) for array in (step, u, b_in, c_out))
        numba_loops.ssd_scan(steps, np.exp(steps * rate), inputs, b, c, skips, y[now], state[i])
    return y


def mamba_layer(
    hidden: Array,
    around: Around,
    window: Array,
    state: Array,
    threshold: Array | None,
    weights: MambaWeights,
    limit: Limit,
) -> Outputs:
    """A layer of Mamba-1 for one token of one sequence: hidden (d_model,); window (k - 1, d); state (n, d), changed in
    place; threshold (d,)."""
    units = weights.skip.size
    out = _outputs(hidden, window, units)
    rest = window, state, _or_lowest(threshold, units), weights, limit, numba_loops.TERMS, out
    return _layer(hidden, around, numba_decode.mamba_layer, numba_decode.mamba, rest)


def mamba2_layer(
    hidden: Array,
    around: Around,
    window: Array,
    state: Array,
    threshold: Array | None,
    weights: Mamba2Weights,
    limit: Limit,
) -> Outputs:
    """A layer of Mamba-2 for one token of one sequence: hidden (d_model,); window (k - 1, c); state (h, p, n), changed
    in place; threshold (h,)."""
    out = _outputs(hidden, window, weights.norm.size)
    rest = window, state, _or_lowest(threshold, len(state)), weights, limit, numba_loops.TERMS, out
    return _layer(hidden, around, numba_decode.mamba2_layer, numba_decode.mamba2, rest)


def _layer(
    hidden: Array, around: Around, whole: Callable[..., None], between: Callable[..., None], rest: tuple[Any, ...]
) -> Outputs:
    out: Outputs = rest[-1]
    if _one_thread():
        whole(hidden, around, *rest)
    else:
        normed = rms_norm(hidden, around.norm, around.eps)
        between(linear(normed, around.in_proj, around.in_bias), *rest)
        np.add(hidden, linear(out.y, around.out_proj, around.out_bias), out=out.hidden)
    return out


def _outputs(hidden: Array, window: Array, width: int) -> Outputs:
    y, kept = np.empty(width, dtype=np.float32), np.empty(1, dtype=np.int32)
    return Outputs(np.empty_like(hidden), np.empty_like(window), y, kept)


def exponents(rate: Array) -> Array:
    """Decay rates as exponents of 2, as the loops and `MambaWeights` take them."""
    return rate * np.float32(math.log2(math.e))


def _or_zeros(given: Array | None, width: int) -> Array:
    return np.zeros(width, dtype=np.float32) if given is None else given


def _or_lowest(threshold: Array | None, units: int) -> Array:
    return _lowest(units) if threshold is None else threshold


@lru_cache
def _lowest(units: int) -> Array:
    """Thresholds that all step sizes are above."""
    return np.full(units, -np.inf, dtype=np.float32)


def _rows(x: Array) -> Array:
    """x (..., c) as (rows, c) in C order; no copy where it is in that order already."""
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])
