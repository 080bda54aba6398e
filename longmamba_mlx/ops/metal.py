"""The ops through Metal kernels, and whether this machine's Metal can be trusted with them."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import Any

import mlx.core as mx
import numpy as np

from longmamba_mlx import metal_kernels
from longmamba_mlx.errors import NoMLXError
from longmamba_mlx.metal_kernels import conv as conv_kernel
from longmamba_mlx.metal_kernels import dt_b_c_norm as parts_kernel
from longmamba_mlx.metal_kernels import gated_norm as norm_kernel
from longmamba_mlx.metal_kernels import scan as scan_kernel
from longmamba_mlx.ops import conv, norm, reference
from longmamba_mlx.ops.inputs import Scan, ScanInputs
from longmamba_mlx.ops.mamba3 import chunked
from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs, Mamba3Scan


def usable(*, required: bool) -> bool:
    """True where the kernels compile, run and agree with the reference on a small case (tried once).

    Where they do not, plain MLX takes over with one warning, or NoMLXError is raised when `required`.
    """
    problem = _problem() if metal_kernels.is_available() else "no Metal device"
    if problem is None:
        return True
    if required:
        raise NoMLXError(
            f"the Metal kernels cannot be used: {problem}", hint="unset LONGMAMBA_KERNEL to run without them"
        )
    return False


@lru_cache(maxsize=1)
def _problem() -> str | None:
    try:
        difference = _difference_from_reference()
    except (RuntimeError, ValueError) as error:
        problem = (str(error).splitlines() or ["unknown error"])[0][:200]
    else:
        if difference < 1e-4:
            return None
        problem = f"they differ from the reference by {difference:.1e}"
    warnings.warn(f"longmamba-mlx: Metal kernels are off ({problem}); plain MLX is used", stacklevel=2)
    return problem


def _difference_from_reference() -> float:
    """Largest difference of any kernel, relative to the output's largest value, on 37 tokens, half of them filtered."""
    keys = mx.random.split(mx.random.key(7), 6)
    x, dt = (mx.random.normal((1, 37, 40), key=key) for key in keys[:2])
    B, C = (mx.random.normal((1, 37, 16), key=key) for key in keys[2:4])
    A = -mx.exp(mx.random.normal((40, 16), key=keys[4]))
    threshold, taps = mx.zeros((40,)), mx.random.normal((40, 4), key=keys[5])
    channels = ScanInputs(x, dt, A, B, C, D=mx.ones((40,)), z=x, threshold=threshold)
    heads = ScanInputs(
        x.reshape(1, 37, 4, 10),
        dt[:, :, :4],
        A[:4, 0],
        B[:, :, None],
        C[:, :, None],
        D=mx.ones((4,)),
        threshold=threshold[:4],
    )
    grouped: dict[str, Any] = {"groups": 2, "eps": 1e-5}
    mine = [*selective_scan(channels), *ssd_scan(heads), *causal_conv1d(x, taps)]
    mine += [gated_rms_norm(x, dt, taps[:, 0], **grouped), *dt_b_c_norms(x, (8, 16, 16), eps=1e-5)]
    expected = [*reference.selective_scan(channels), *reference.ssd_scan(heads), *conv.causal_conv1d(x, taps)]
    expected += [norm.gated_rms_norm(x, dt, taps[:, 0], **grouped), *norm.dt_b_c_norms(x, (8, 16, 16), eps=1e-5)]
    differences = [mx.abs(a - b).max() / mx.abs(b).max() for a, b in zip(mine, expected, strict=True)]
    worst = np.asarray(mx.stack(differences)).max()
    return math.inf if np.isnan(worst) else float(worst)


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
    """As `mamba3.reference.mamba3_scan`, in plain MLX: there is no Metal kernel for it yet."""
    return chunked.mamba3_scan(inputs)


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
    return parts_kernel.part_norms(x, weights, eps)


def _spread(value: float, shape: tuple[int, ...]) -> mx.array:
    """One number seen as an array: no memory and no launch, since the kernels read through strides."""
    return mx.broadcast_to(mx.array(value, dtype=mx.float32), shape)


def _state(inputs: ScanInputs, shape: tuple[int, ...]) -> mx.array:
    return _spread(0.0, shape) if inputs.initial_state is None else inputs.initial_state


def _coefficients(inputs: ScanInputs, A: mx.array, *, per_head: bool) -> scan_kernel.Coefficients:
    D, dt_bias = (_spread(0.0, A.shape[:1]) if vector is None else vector for vector in (inputs.D, inputs.dt_bias))
    return scan_kernel.Coefficients(A, D, dt_bias, inputs.threshold, inputs.time_step_limit, per_head)


def _result(inputs: ScanInputs, y: mx.array, state: mx.array, kept: mx.array) -> Scan:
    if not inputs.return_kept:
        return y, state
    if inputs.threshold is None:  # every unit keeps every token
        kept = mx.full(y.shape[:2], inputs.dt.shape[2], dtype=mx.int32)
    return y, state, kept
