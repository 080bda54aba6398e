"""The specification of all ops, in plain array operations; the scans take one token after the other.

Everything faster in this package is tested against these functions and means exactly the same; the tests hold them to
the float64 recurrences of `oracle` (MLX's own float64 exp is only as exact as float32).

    raw_t  = dt_t + dt_bias                          float32, before the softplus
    keep_t = raw_t > threshold                       strictly greater; per unit (channel or head)
    dt_t   = clip(softplus(raw_t), *time_step_limit) where kept, else exactly 0
    h_t    = exp(dt_t A) h_(t-1) + dt_t B_t x_t
    y_t    = (C_t h_t + D x_t) silu(z_t)

A filtered token neither decays the state nor writes to it: exp(0) = 1 and 0 B x = 0. It still reads the state and keeps
its skip connection D x. (Mamba: arXiv 2312.00752, eq. 2 and 4; Mamba-2: arXiv 2405.21060, sec. 3; the filter:
LongMamba, arXiv 2504.16053, sec. 4.)

Letters: b batch, l tokens, d channels, h heads, p head width, g groups, n state size, u units (channels or heads).
"""

from __future__ import annotations

import mlx.core as mx

from longmamba_mlx.ops.activations import silu
from longmamba_mlx.ops.conv import causal_conv1d
from longmamba_mlx.ops.filtered_dt import filtered_dt
from longmamba_mlx.ops.inputs import Scan, ScanInputs
from longmamba_mlx.ops.mamba3.reference import mamba3_scan
from longmamba_mlx.ops.norm import dt_b_c_norms, gated_rms_norm

__all__ = ["causal_conv1d", "dt_b_c_norms", "gated_rms_norm", "mamba3_scan", "selective_scan", "ssd_scan"]


def selective_scan(inputs: ScanInputs) -> Scan:
    """Mamba-1's scan, sequentially. x, dt, z (b, l, d); A (d, n); B, C (b, l, n); state (b, d, n)."""
    dt, keep = filtered_dt(inputs.dt, inputs.dt_bias, inputs.threshold, inputs.time_step_limit)
    x, A, B, C = (array.astype(mx.float32) for array in (inputs.x, inputs.A, inputs.B, inputs.C))
    batch, length, channels = x.shape
    h = _start(inputs, (batch, channels, A.shape[1]))
    outputs: list[mx.array] = [mx.array(0.0)] * length
    for t in _order(inputs, length):
        h = mx.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * x[:, t])[:, :, None] * B[:, t, None, :]
        outputs[t] = (h * C[:, t, None, :]).sum(axis=-1)
    D = None if inputs.D is None else inputs.D.astype(mx.float32)
    return _result(inputs, mx.stack(outputs, axis=1), D, h, keep)


def ssd_scan(inputs: ScanInputs) -> Scan:
    """Mamba-2's scan, sequentially. x, z (b, l, h, p); dt (b, l, h); A (h,); B, C (b, l, g, n); state (b, h, p, n)."""
    dt, keep = filtered_dt(inputs.dt, inputs.dt_bias, inputs.threshold, inputs.time_step_limit)
    x, A = inputs.x.astype(mx.float32), inputs.A.astype(mx.float32)
    batch, length, heads, width = x.shape
    # Head i reads group i // (h / g), as in Mamba-2's grouped B and C (sec. 7.1).
    B, C = (mx.repeat(array.astype(mx.float32), heads // array.shape[2], axis=2) for array in (inputs.B, inputs.C))
    h = _start(inputs, (batch, heads, width, B.shape[3]))
    outputs: list[mx.array] = [mx.array(0.0)] * length
    for t in _order(inputs, length):
        decay = mx.exp(dt[:, t] * A)[:, :, None, None]
        h = decay * h + (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None, :]
        outputs[t] = (h * C[:, t, :, None, :]).sum(axis=-1)
    D = None if inputs.D is None else inputs.D.astype(mx.float32)[:, None]
    return _result(inputs, mx.stack(outputs, axis=1), D, h, keep)


def _order(inputs: ScanInputs, length: int) -> range:
    return range(length - 1, -1, -1) if inputs.reverse else range(length)


def _start(inputs: ScanInputs, shape: tuple[int, ...]) -> mx.array:
    return mx.zeros(shape, dtype=mx.float32) if inputs.initial_state is None else inputs.initial_state


def _result(inputs: ScanInputs, y: mx.array, D: mx.array | None, state: mx.array, keep: mx.array) -> Scan:
    """Apply the skip connection, the gate and x's dtype; add kept counts on request."""
    if D is not None:
        y = y + D * inputs.x.astype(mx.float32)
    if inputs.z is not None:
        y = y * silu(inputs.z.astype(mx.float32))
    y = y.astype(inputs.x.dtype)
    return (y, state, keep.astype(mx.int32).sum(axis=-1)) if inputs.return_kept else (y, state)
