"""Step sizes with LongMamba's filter, in plain MLX: the first step of every scan."""

from __future__ import annotations

import mlx.core as mx

from longmamba_mlx.ops.activations import softplus
from longmamba_mlx.ops.inputs import UNBOUNDED, DtRange


def filtered_dt(
    dt: mx.array, dt_bias: mx.array | None, threshold: mx.array | None, dt_range: DtRange
) -> tuple[mx.array, mx.array]:
    """Apply softplus, `dt_range` and LongMamba's filter to raw dt (b, l, u); dt_bias, threshold (u,).

    Returns dt in float32, exactly 0 where filtered, and what was kept (bool), both (b, l, u).

    The comparison is made before the softplus, in float32: thresholds taken from data tie with it, and only
    the raw sum (one IEEE addition) is the same number on every machine.
    """
    raw = dt.astype(mx.float32)
    if dt_bias is not None:
        raw = raw + dt_bias.astype(mx.float32)
    dt = softplus(raw)
    if dt_range != UNBOUNDED:
        dt = mx.clip(dt, dt_range[0], dt_range[1])
    if threshold is None:
        return dt, mx.ones(dt.shape, dtype=mx.bool_)
    keep = raw > threshold
    # After the clip: a lower bound above 0 would otherwise write the filtered tokens back in.
    return mx.where(keep, dt, mx.zeros_like(dt)), keep
