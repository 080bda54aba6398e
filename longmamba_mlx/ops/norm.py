"""Mamba-2's gated RMS norm, per group, and the norms of dt, B and C in Falcon-Mamba and Jamba."""

from __future__ import annotations

import mlx.core as mx

from longmamba_mlx.ops.activations import silu


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


def dt_b_c_norms(
    x: mx.array,
    sizes: tuple[int, int, int],
    *,
    eps: float,
    weights: tuple[mx.array, mx.array, mx.array] | None = None,
) -> tuple[mx.array, mx.array, mx.array]:
    """Split x_proj's output x (b, l, r + n + n) into dt (r), B (n) and C (n), and RMS-normalise each on its own.

    weights (r,), (n,), (n,) scale the results (Jamba, arXiv 2403.19887); None: no scale (Falcon-Mamba, arXiv
    2410.05355). Returns three float32 arrays: the filter compares numbers made from the first.
    """
    dt, B, C = mx.split(x.astype(mx.float32), [sizes[0], sizes[0] + sizes[1]], axis=-1)
    scales = (None, None, None) if weights is None else tuple(weight.astype(mx.float32) for weight in weights)
    return (
        mx.fast.rms_norm(dt, scales[0], eps),
        mx.fast.rms_norm(B, scales[1], eps),
        mx.fast.rms_norm(C, scales[2], eps),
    )
