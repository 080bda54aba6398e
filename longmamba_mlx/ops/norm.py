"""Mamba-2's gated RMS norm, per group."""

from __future__ import annotations

import mlx.core as mx

from longmamba_mlx.ops.reference import silu


def gated_rms_norm(
    y: mx.array, z: mx.array, weight: mx.array, *, groups: int, eps: float, norm_before_gate: bool = False
) -> mx.array:
    """norm(y * silu(z)) * weight, or norm(y) * weight * silu(z) with `norm_before_gate`.

    y, z (b, l, d_inner); weight (d_inner,). The mean square is taken over each of `groups` equal slices of
    the width, as in the original Mamba-2 (`group_size = d_inner / n_groups`). Float32 inside; y's dtype
    returned.
    """
    gate = silu(z.astype(mx.float32))
    value = y.astype(mx.float32)
    value = value if norm_before_gate else value * gate
    scale = weight.astype(mx.float32)
    if groups == 1:
        normed = mx.fast.rms_norm(value, scale, eps)  # one launch for both
    else:
        split = value.reshape(*value.shape[:-1], groups, -1)
        normed = mx.fast.rms_norm(split, None, eps).reshape(value.shape) * scale
    return (normed * gate if norm_before_gate else normed).astype(y.dtype)
