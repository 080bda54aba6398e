"""Step sizes: raw (dt + dt_bias, float32) to Delta and back, in float64.

In float64 the way there and back returns every float32 raw value unchanged (but for those within 1e-8 of
zero), so a threshold taken from a data point drops exactly that point.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating[Any]]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
DtRange = tuple[float, float]
"""A model's `time_step_limit`: dt is clipped to [low, high] after softplus."""


def delta_of(raw: Float, dt_range: DtRange = (0.0, float("inf"))) -> Float64:
    """clip(softplus(raw), *dt_range), raw of any shape; through log1p: small values keep their digits."""
    wide = np.asarray(raw, np.float64)
    delta = np.maximum(wide, 0.0) + np.log1p(np.exp(-np.abs(wide)))
    if dt_range != (0.0, float("inf")):
        delta = np.clip(delta, *dt_range)
    return np.asarray(delta)


def raw_of(delta: Float, dt_range: DtRange = (0.0, float("inf"))) -> Float32:
    """The raw threshold r such that raw > r exactly where Delta > delta.

    Zero, and anything below the lower end of the range, gives -inf: no token is at or below it.
    """
    wide = np.asarray(delta, np.float64)
    with np.errstate(divide="ignore"):
        raw = wide + np.log(-np.expm1(-wide))
    return np.asarray(np.where(wide < dt_range[0], -np.inf, raw), np.float32)


def scaled_threshold(thresholds: Float32, factor: float, dt_range: DtRange) -> Float32:
    """Raw thresholds for `factor` times their dt (the authors' b)."""
    return thresholds if factor == 1.0 else raw_of(factor * delta_of(thresholds), dt_range)
