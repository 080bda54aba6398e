"""The ops through Metal kernels."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import mlx.core as mx

from longmamba_mlx.metal_kernels import conv as conv_kernel
from longmamba_mlx.metal_kernels import dt_b_c_norm as parts_kernel
from longmamba_mlx.metal_kernels import gated_norm as norm_kernel
from longmamba_mlx.metal_kernels import mamba3 as mamba3_kernel
from longmamba_mlx.metal_kernels import scan as scan_kernel
from longmamba_mlx.ops import conv
from longmamba_mlx.ops.inputs import Scan, ScanInputs
from longmamba_mlx.ops.mamba3 import chunked
from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs, Mamba3Scan, Mamba3State
from longmamba_mlx.ops.mamba3.turns import SOFTPLUS, TANH, table_on_device


def fits(states: int) -> bool:
    """True where a state of this size fits the scan kernel's threadgroup memory."""
    return states <= scan_kernel.MAX_STATES


def selective_scan(inputs: ScanInputs) -> Scan:
    """As `reference.selective_scan`, in one launch: the channels are the rows of one head."""
    x, z, B, C = inputs.x, inputs.z, inputs.B, inputs.C
    batch, _, channels = x.shape
    y, state, kept = scan_kernel.scan(
        mx.expand_dims(x, 2),
        mx.expand_dims(inputs.dt, 2),
        None if z is None else mx.expand_dims(z, 2),
        mx.expand_dims(B, 2),
        mx.expand_dims(C, 2),
        mx.expand_dims(_state(inputs, (batch, channels, B.shape[2])), 1),
        _coefficients(inputs, inputs.A, per_head=False),
        reverse=inputs.reverse,
        return_kept=inputs.return_kept and inputs.threshold is not None,
    )
    return _result(inputs, mx.squeeze(y, 2), mx.squeeze(state, 1), kept)


def ssd_scan(inputs: ScanInputs, *, chunked: bool = True) -> Scan:
    """As `reference.ssd_scan`. Whole chunks of 64 tokens are one launch on the matrix units where heads have sizes that
    divide into them and `chunked`; what remains is one launch that takes one token after the other."""
    batch, _, heads, width = inputs.x.shape
    states = inputs.B.shape[3]
    y, state, kept = scan_kernel.scan(
        inputs.x,
        inputs.dt[..., None],
        inputs.z,
        inputs.B,
        inputs.C,
        _state(inputs, (batch, heads, width, states)),
        _coefficients(inputs, inputs.A[:, None], per_head=True),
        reverse=inputs.reverse,
        return_kept=inputs.return_kept and inputs.threshold is not None,
        chunked=chunked and scan_kernel.can_chunk(width, states),
    )
    return _result(inputs, y, state, kept)


def mamba3_scan(inputs: Mamba3Inputs) -> Mamba3Scan:
    """As `mamba3.reference.mamba3_scan`, in two launches; any split in time is bitwise the whole. Keys too wide for the
    kernel go through plain MLX."""
    batch, _, heads, width = inputs.x.shape
    rank, size, angles = inputs.rank, inputs.B.shape[4], inputs.angle.shape[2]
    if not mamba3_kernel.fits(rank, size):
        return chunked.mamba3_scan(inputs)
    mimo, start = inputs.mimo, inputs.initial_state
    zeros = (_spread(0.0, (batch, heads, *shape)) for shape in ((width, size), (rank, size), (width,)))
    ssm, k, v = zeros if start is None else (start.ssm, start.k, start.v)
    y, state, kept = mamba3_kernel.mamba3(
        mamba3_kernel.PerToken(inputs.x, inputs.z, inputs.B, inputs.C, inputs.dt, inputs.A, inputs.trap, inputs.angle),
        (ssm, _spread(0, (batch, heads, angles), mx.uint32) if start is None else start.angle, k, v),
        mamba3_kernel.Fixed(
            B_bias=inputs.B_bias,
            C_bias=inputs.C_bias,
            D=_spread(0.0, (heads,)) if inputs.D is None else inputs.D,
            dt_bias=_spread(0.0, (heads,)) if inputs.dt_bias is None else inputs.dt_bias,
            threshold=inputs.threshold,
            mimo=None if mimo is None else (mimo.x, mimo.z, mimo.out),
            A_floor=inputs.A_floor,
            tables=(table_on_device(SOFTPLUS), table_on_device(TANH)),
        ),
        return_kept=inputs.return_kept and inputs.threshold is not None,
    )
    return _result(inputs, y, Mamba3State(*state), kept)


def causal_conv1d(
    x: mx.array, weight: mx.array, bias: mx.array | None = None, initial: mx.array | None = None
) -> tuple[mx.array, mx.array]:
    """As `conv.causal_conv1d`, in one launch."""
    batch, _, channels = x.shape
    taps = weight.shape[1]
    if taps == 1:
        return conv.causal_conv1d(x, weight, bias, initial)  # no window to carry: nothing to fuse
    before = _spread(0.0, (batch, taps - 1, channels)) if initial is None else initial
    return conv_kernel.causal_conv1d(x, weight, _spread(0.0, (channels,)) if bias is None else bias, before)


def gated_rms_norm(
    y: mx.array, z: mx.array, weight: mx.array, *, groups: int, eps: float, norm_before_gate: bool = False
) -> mx.array:
    """As `norm.gated_rms_norm`, in one launch."""
    return norm_kernel.gated_rms_norm(y, z, weight, groups=groups, eps=eps, norm_before_gate=norm_before_gate)


def dt_b_c_norms(
    x: mx.array,
    sizes: tuple[int, int, int],
    *,
    eps: float,
    weights: tuple[mx.array, mx.array, mx.array] | None = None,
) -> tuple[mx.array, mx.array, mx.array]:
    """As `norm.dt_b_c_norms`, in one launch."""
    if weights is None:
        weights = (_spread(1.0, (sizes[0],)), _spread(1.0, (sizes[1],)), _spread(1.0, (sizes[2],)))
    return parts_kernel.dt_b_c_norms(x, weights, eps)


@lru_cache(maxsize=64)
def _spread(value: float, shape: tuple[int, ...], dtype: mx.Dtype = mx.float32) -> mx.array:
    """One number seen as an array: no memory and no launch, since the kernels read through strides."""
    array = mx.broadcast_to(mx.array(value, dtype=dtype), shape)
    mx.eval(array)  # so that it is no node of a graph, and belongs to no thread
    return array


def _state(inputs: ScanInputs, shape: tuple[int, ...]) -> mx.array:
    return _spread(0.0, shape) if inputs.initial_state is None else inputs.initial_state


def _coefficients(inputs: ScanInputs, A: mx.array, *, per_head: bool) -> scan_kernel.Coefficients:
    D, dt_bias = (_spread(0.0, A.shape[:1]) if vector is None else vector for vector in (inputs.D, inputs.dt_bias))
    return scan_kernel.Coefficients(A, D, dt_bias, inputs.threshold, inputs.time_step_limit, per_head)


def _result(
    inputs: ScanInputs | Mamba3Inputs, y: mx.array, state: Any, kept: mx.array
) -> tuple[mx.array, Any] | tuple[mx.array, Any, mx.array]:
    if not inputs.return_kept:
        return y, state
    if inputs.threshold is None:  # every unit keeps every token
        kept = mx.full(y.shape[:2], inputs.dt.shape[2], dtype=mx.int32)
    return y, state, kept
