"""The ops for MLX arrays on a CPU without Apple's Accelerate (Linux): through `numpy_ops` and back.

These need values, so they cannot run inside a traced function; LONGMAMBA_KERNEL=reference can.
"""

from __future__ import annotations

import math
import os
import warnings
from contextlib import AbstractContextManager
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import UsageError
from longmamba_mlx.ops.cpu import numpy_ops
from longmamba_mlx.ops.cpu.numpy_ops import Array, Counts
from longmamba_mlx.ops.norm import Three
from longmamba_mlx.ops.reference import Limit, Scan

# Channels from which a layer is always worth the 0.7 s and the 100 MiB that loading numba takes.
_COMPILED_FROM = 1024


def single_threaded() -> AbstractContextManager[object]:
    """While this is open, NumPy's matrix products use one thread."""
    limits: AbstractContextManager[object] = numpy_ops.blas_libraries().limit(limits=1, user_api="blas")
    return limits


def fastest(channels: int) -> ModuleType:
    """`arrays`, or `compiled`, which means the same: for a layer of many channels, if numba is installed, and for any
    with LONGMAMBA_KERNEL=compiled. Raises UsageError where that is asked for and numba cannot be used."""
    if os.environ.get("LONGMAMBA_KERNEL") == "compiled":
        found = _compiled()
        if isinstance(found, str):
            raise UsageError(f"LONGMAMBA_KERNEL is 'compiled', but {found}", hint="pip install -U numba")
        return found
    found = _compiled() if channels >= _COMPILED_FROM else ""
    return numpy_ops if isinstance(found, str) else found


@cache
def _compiled() -> ModuleType | str:
    """The module `compiled`, or why there is none. One that is there and does not work is warned of, once."""
    if find_spec("numba") is None:
        return "numba is not installed"
    try:
        from longmamba_mlx.ops.cpu import numba_ops
    except (ImportError, RuntimeError) as error:  # numba refuses a newer NumPy, or finds no place for its cache
        reason = f"numba does not work here: {error}"
        warnings.warn(f"longmamba-mlx: {reason}; wide layers run without it, slower", RuntimeWarning, stacklevel=2)
        return reason
    return numba_ops


def to_numpy(array: mx.array) -> Array:
    """The values in float32: the array's own memory where it is float32 already. Never write to it."""
    if array.dtype != mx.float32:
        array = array.astype(mx.float32)
    return np.asarray(array)


def to_mlx(array: NDArray[Any], dtype: mx.Dtype = mx.float32) -> mx.array:
    """An mx.array holding a copy of the values."""
    result = mx.array(array)
    return result if result.dtype == dtype else result.astype(dtype)


def causal_conv1d(
    x: mx.array, weight: mx.array, bias: mx.array | None = None, initial: mx.array | None = None
) -> tuple[mx.array, mx.array]:
    """As `conv.causal_conv1d`."""
    taps = np.ascontiguousarray(to_numpy(weight).T)
    y, window = fastest(x.shape[-1]).causal_conv1d(to_numpy(x), taps, _optional(bias), _optional(initial))
    return to_mlx(y, x.dtype), to_mlx(window, x.dtype)


def gated_rms_norm(
    y: mx.array, z: mx.array, weight: mx.array, *, groups: int, eps: float, norm_before_gate: bool = False
) -> mx.array:
    """As `norm.gated_rms_norm`."""
    norm = fastest(y.shape[-1]).gated_rms_norm
    inputs = (to_numpy(y), to_numpy(z), to_numpy(weight))
    return to_mlx(norm(*inputs, groups=groups, eps=eps, norm_before_gate=norm_before_gate), y.dtype)


def part_norms(x: mx.array, sizes: tuple[int, int, int], *, eps: float, weights: Three | None = None) -> Three:
    """As `norm.part_norms`."""
    parts = numpy_ops.parts(to_numpy(x), *sizes)
    scales = (None, None, None) if weights is None else tuple(to_numpy(weight) for weight in weights)
    low, b_in, c_out = (to_mlx(numpy_ops.rms_norm(part, scale, eps)) for part, scale in zip(parts, scales, strict=True))
    return low, b_in, c_out


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
    """As `reference.selective_scan`."""
    u, fast = to_numpy(x), fastest(x.shape[-1])
    step, kept = _steps(fast, dt, dt_bias, threshold, time_step_limit)
    rate = np.ascontiguousarray(to_numpy(A).T)
    state = np.zeros((len(u), *rate.shape), dtype=np.float32)
    if initial_state is not None:
        state[:] = to_numpy(initial_state).swapaxes(1, 2)
    y = fast.selective_scan(u, step, rate, to_numpy(B), to_numpy(C), state, _optional(D), reverse=reverse)
    if z is not None:
        fast.gate(y, to_numpy(z))
    return _result(to_mlx(y, x.dtype), to_mlx(state.swapaxes(1, 2)), kept, return_kept)


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
    """As `reference.ssd_scan`."""
    u, b_in, fast = to_numpy(x), to_numpy(B), fastest(x.shape[2] * x.shape[3])
    step, kept = _steps(fast, dt, dt_bias, threshold, time_step_limit)
    state = np.zeros((u.shape[0], *u.shape[2:], b_in.shape[3]), dtype=np.float32)
    if initial_state is not None:
        state[:] = to_numpy(initial_state)
    y = fast.ssd_scan(u, step, to_numpy(A), b_in, to_numpy(C), state, _optional(D), reverse=reverse)
    if z is not None:
        fast.gate(y, to_numpy(z))
    return _result(to_mlx(y, x.dtype), to_mlx(state), kept, return_kept)


def _optional(array: mx.array | None) -> Array | None:
    return None if array is None else to_numpy(array)


def _steps(
    fast: ModuleType, dt: mx.array, dt_bias: mx.array | None, threshold: mx.array | None, limit: Limit
) -> tuple[Array, Counts]:
    raw = to_numpy(dt)
    if dt_bias is not None:
        raw = raw + to_numpy(dt_bias)
    step, kept = fast.steps(raw, _optional(threshold), limit)
    return step, kept


def _result(y: mx.array, state: mx.array, kept: Counts, return_kept: bool) -> Scan:
    return (y, state, to_mlx(kept, mx.int32)) if return_kept else (y, state)
