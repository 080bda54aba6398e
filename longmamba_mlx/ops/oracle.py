"""The ops in float64, one token after the other, in NumPy: what `selftest` and the tests compare with.

Written from the papers' recurrences, with no code in common with the implementations. Arguments are those of `ops`,
arrays of MLX or NumPy; what comes back is float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.ops.inputs import UNBOUNDED, DtRange

Values = NDArray[np.float64]
Given = mx.array | NDArray[Any]
Case = dict[str, Any]


def as64(array: Given) -> Values:
    """The exact values in float64."""
    values: Values = np.array(array.astype(mx.float32) if isinstance(array, mx.array) else array).astype(np.float64)
    return values


def softplus(x: Values) -> Values:
    """log(1 + exp(x))."""
    result: Values = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return result


def silu(x: Values) -> Values:
    """x * sigmoid(x)."""
    result: Values = x / (1 + np.exp(-x))
    return result


def filtered_dt(
    dt: Given, dt_bias: Given | None, threshold: Given | None, dt_range: DtRange
) -> tuple[Values, NDArray[np.bool_]]:
    """dt (b, l, u), exactly 0 where filtered, and what was kept. The filter compares one float32 addition."""
    raw, bias = as64(dt), np.float64(0) if dt_bias is None else as64(dt_bias)
    clipped = np.clip(softplus(raw + bias), *dt_range)
    if threshold is None:
        return clipped, np.ones(clipped.shape, bool)
    kept = raw.astype(np.float32) + bias.astype(np.float32) > as64(threshold).astype(np.float32)
    return np.where(kept, clipped, 0.0), kept


def selective_scan(
    x: Given, dt: Given, A: Given, B: Given, C: Given, **options: Any
) -> tuple[Values, Values, NDArray[np.int64]]:
    """Mamba-1: y, the state after the last token, kept counts. `options` are `ops.selective_scan`'s."""
    x, A, B, C = map(as64, (x, A, B, C))
    dt, kept = _discretised(dt, options)
    h, y = _start(options, (len(x), *A.shape)), np.zeros_like(x)
    for t in _order(options, x.shape[1]):
        h = np.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * x[:, t])[..., None] * B[:, t, None]
        y[:, t] = (h * C[:, t, None]).sum(-1)
    D = options.get("D")
    return _gated(y if D is None else y + as64(D) * x, options), h, kept.sum(-1)


def ssd_scan(
    x: Given, dt: Given, A: Given, B: Given, C: Given, **options: Any
) -> tuple[Values, Values, NDArray[np.int64]]:
    """Mamba-2: y, the state after the last token, kept counts. `options` are `ops.ssd_scan`'s."""
    x, A = as64(x), as64(A)
    B, C = (np.repeat(as64(array), x.shape[2] // array.shape[2], axis=2) for array in (B, C))
    dt, kept = _discretised(dt, options)
    h, y = _start(options, (len(x), *x.shape[2:], B.shape[3])), np.zeros_like(x)
    for t in _order(options, x.shape[1]):
        decay = np.exp(dt[:, t] * A)[..., None, None]
        h = decay * h + (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None]
        y[:, t] = (h * C[:, t, :, None]).sum(-1)
    D = options.get("D")
    return _gated(y if D is None else y + as64(D)[:, None] * x, options), h, kept.sum(-1)


def causal_conv1d(
    x: Given, weight: Given, bias: Given | None = None, initial: Given | None = None
) -> tuple[Values, Values]:
    """silu of the convolution, and the next window."""
    x, weight = as64(x), as64(weight)
    taps = weight.shape[1]
    before = np.zeros((len(x), taps - 1, x.shape[2])) if initial is None else as64(initial)
    padded = np.concatenate([before, x], axis=1)
    y = sum((padded[:, tap : tap + x.shape[1]] * weight[:, tap] for tap in range(taps)), np.zeros_like(x))
    return silu(y if bias is None else y + as64(bias)), padded[:, x.shape[1] :]


def gated_rms_norm(
    y: Given, z: Given, weight: Given, groups: int, eps: float, norm_before_gate: bool = False
) -> tuple[Values]:
    """The gated norm."""
    y, gate = as64(y), silu(as64(z))
    value = y if norm_before_gate else y * gate
    normed = _rms_normed(value.reshape(*y.shape[:2], groups, -1), eps).reshape(y.shape) * as64(weight)
    return (normed * gate if norm_before_gate else normed,)


def dt_b_c_norms(
    x: Given, sizes: tuple[int, int, int], eps: float, weights: Sequence[Given] | None = None
) -> tuple[Values, ...]:
    """The norms of dt, B and C."""
    parts = np.split(as64(x), [sizes[0], sizes[0] + sizes[1]], axis=-1)
    normed = [_rms_normed(part, eps) for part in parts]
    if weights is None:
        return tuple(normed)
    return tuple(part * as64(weight) for part, weight in zip(normed, weights, strict=True))


def _rms_normed(x: Values, eps: float) -> Values:
    result: Values = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
    return result


def _discretised(dt: Given, options: Case) -> tuple[Values, NDArray[np.bool_]]:
    dt_range = options.get("time_step_limit", UNBOUNDED)
    return filtered_dt(dt, options.get("dt_bias"), options.get("threshold"), dt_range)


def _start(options: Case, shape: tuple[int, ...]) -> Values:
    state = options.get("initial_state")
    return np.zeros(shape) if state is None else as64(state)


def _order(options: Case, length: int) -> range:
    return range(length)[:: -1 if options.get("reverse") else 1]


def _gated(y: Values, options: Case) -> Values:
    z = options.get("z")
    return y if z is None else y * silu(as64(z))
