"""The operations of a filtered Mamba layer, and the one place that decides how they run.

`selective_scan` (Mamba-1), `ssd_scan` (Mamba-2), `causal_conv1d`, `gated_rms_norm` and `part_norms` mean the same
everywhere; `reference` is their specification. The environment variable LONGMAMBA_KERNEL chooses the
implementation:

    auto        (default) Metal on an Apple GPU; NumPy on a CPU without Accelerate (Linux); else plain MLX
    reference   the specification: one token after the other, in plain MLX
    metal       the Metal kernels, or an error
    cpu         NumPy; loops that numba compiles for wide layers, where it is installed
    compiled    as cpu, but those loops for narrow layers too: they take a second and 100 MiB to load, and then read a
                long text in half the time or less
"""

from __future__ import annotations

import math
import os
import sys

import mlx.core as mx

from longmamba_mlx.errors import UsageError
from longmamba_mlx.ops import checks, chunked_ssd, conv, norm, reference
from longmamba_mlx.ops.norm import Three
from longmamba_mlx.ops.reference import Limit, Scan

__all__ = [
    "causal_conv1d", "gated_rms_norm", "implementation", "numpy_backed", "part_norms", "selective_scan", "ssd_scan",
]  # fmt: skip

_CHOICES = ("auto", "reference", "metal", "cpu", "compiled")
_UNBOUNDED: Limit = (0.0, math.inf)


def implementation() -> str:
    """How ops run now: "metal", "cpu" (NumPy), "mlx" or "reference". UsageError for an unknown wish."""
    wish = os.environ.get("LONGMAMBA_KERNEL", "auto") or "auto"
    if wish not in _CHOICES:
        raise UsageError(f"LONGMAMBA_KERNEL is '{wish}'", hint=f"use one of: {', '.join(_CHOICES)}")
    if wish == "compiled":
        return "cpu"
    if wish != "auto":
        return wish
    if mx.default_device().type == mx.DeviceType.cpu:
        return "mlx" if sys.platform == "darwin" else "cpu"
    return "metal" if mx.metal.is_available() else "mlx"


def numpy_backed() -> bool:
    """True where matrix products should go through NumPy (see `ops.linear`)."""
    return implementation() == "cpu"


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
    time_step_limit: Limit = _UNBOUNDED,
    reverse: bool = False,
    return_kept: bool = False,
) -> Scan:
    """Mamba-1's selective scan with LongMamba's filter (arXiv 2312.00752, alg. 2; filter: arXiv 2504.16053).

    x, dt, z (b, l, d); A (d, n), negative; B, C (b, l, n); D, dt_bias, threshold (d,). dt is raw: before the
    bias and the softplus. A token is kept in a channel where dt + dt_bias > threshold (float32, strictly);
    elsewhere its step is exactly 0, so that it neither decays the state nor writes to it. -inf: channel never
    filtered; None: no filter. `time_step_limit` clips the step of kept tokens. `reverse` runs from the last
    token to the first. z gates: y silu(z).

    Returns y (b, l, d) in x's dtype, the state after the last token (b, d, n) float32 and, with
    `return_kept`, how many channels kept each token, (b, l) int32. Step, decay and state are float32 whatever
    the inputs. Raises ValueError, naming the argument, for a wrong shape, dtype or a NaN threshold.
    """
    units = {"D": D, "dt_bias": dt_bias, "threshold": threshold}
    checks.check_selective_scan(x, dt, A, B, C, units, z, initial_state, time_step_limit)
    arguments = (
        x,
        dt,
        A,
        B,
        C,
        D,
        z,
        dt_bias,
        threshold,
        initial_state,
        time_step_limit,
        reverse,
        return_kept,
    )
    how = implementation()
    if how == "cpu":
        from longmamba_mlx.ops.cpu import bridge

        return bridge.selective_scan(*arguments)
    if how == "metal":
        from longmamba_mlx.ops import metal

        if metal.fits(A.shape[1]) and metal.usable(required=_metal_required()):
            return metal.selective_scan(*arguments)
    return reference.selective_scan(*arguments)


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
    time_step_limit: Limit = _UNBOUNDED,
    reverse: bool = False,
    return_kept: bool = False,
) -> Scan:
    """Mamba-2's scan with LongMamba's filter (arXiv 2405.21060; filter: arXiv 2504.16053).

    x, z (b, l, h, p); dt (b, l, h); A (h,), negative; B, C (b, l, g, n) where g divides h; D, dt_bias,
    threshold (h,). Meaning, dtypes and errors as in `selective_scan`, per head. Returns y (b, l, h, p), the
    state (b, h, p, n) float32 and, with `return_kept`, how many heads kept each token, (b, l) int32.
    """
    units = {"D": D, "dt_bias": dt_bias, "threshold": threshold}
    checks.check_ssd_scan(x, dt, A, B, C, units, z, initial_state, time_step_limit)
    arguments = (
        x,
        dt,
        A,
        B,
        C,
        D,
        z,
        dt_bias,
        threshold,
        initial_state,
        time_step_limit,
        reverse,
        return_kept,
    )
    how = implementation()
    if how == "cpu":
        from longmamba_mlx.ops.cpu import bridge

        return bridge.ssd_scan(*arguments)
    if how == "reference":
        return reference.ssd_scan(*arguments)
    if how == "metal":
        from longmamba_mlx.ops import metal

        if metal.fits(B.shape[3]) and metal.usable(required=_metal_required()):
            return metal.ssd_scan(*arguments)
    # The block form is a handful of matrix products, which MLX runs well.
    return chunked_ssd.ssd_scan(*arguments)


def causal_conv1d(
    x: mx.array, weight: mx.array, bias: mx.array | None = None, initial: mx.array | None = None
) -> tuple[mx.array, mx.array]:
    """silu(causal depthwise convolution), and the window to start the next call from.

    x (b, l, c); weight (c, k), oldest token first; bias (c,); initial (b, k-1, c): the raw inputs before x,
    zeros if None. Returns y (b, l, c) and the window (b, k-1, c), both in x's dtype. Raises ValueError naming
    the argument.
    """
    checks.check_conv(x, weight, bias, initial)
    how = implementation()
    if how == "cpu":
        from longmamba_mlx.ops.cpu import bridge

        return bridge.causal_conv1d(x, weight, bias, initial)
    if how == "metal":
        from longmamba_mlx.ops import metal

        if metal.usable(required=_metal_required()):
            return metal.causal_conv1d(x, weight, bias, initial)
    return conv.causal_conv1d(x, weight, bias, initial)


def gated_rms_norm(
    y: mx.array, z: mx.array, weight: mx.array, *, groups: int, eps: float, norm_before_gate: bool = False
) -> mx.array:
    """Mamba-2's gated RMS norm; see `norm.gated_rms_norm`. y, z (b, l, d_inner); weight (d_inner,). Raises ValueError
    naming the argument."""
    checks.check_norm(y, z, weight, groups, eps)
    how = implementation()
    if how == "cpu":
        from longmamba_mlx.ops.cpu import bridge

        return bridge.gated_rms_norm(y, z, weight, groups=groups, eps=eps, norm_before_gate=norm_before_gate)
    if how == "metal":
        from longmamba_mlx.ops import metal

        if metal.usable(required=_metal_required()):
            return metal.gated_rms_norm(y, z, weight, groups=groups, eps=eps, norm_before_gate=norm_before_gate)
    return norm.gated_rms_norm(y, z, weight, groups=groups, eps=eps, norm_before_gate=norm_before_gate)


def part_norms(x: mx.array, sizes: tuple[int, int, int], *, eps: float, weights: Three | None = None) -> Three:
    """The RMS norms of dt, B and C (Falcon-Mamba, Jamba); see `norm.part_norms`. x (b, l, r + n + n), sizes (r, n, n);
    float32 returned. Raises ValueError naming the argument."""
    checks.check_part_norms(x, sizes, weights, eps)
    how = implementation()
    if how == "cpu":
        from longmamba_mlx.ops.cpu import bridge

        return bridge.part_norms(x, sizes, eps=eps, weights=weights)
    if how == "metal":
        from longmamba_mlx.ops import metal

        if metal.usable(required=_metal_required()):
            return metal.part_norms(x, sizes, eps=eps, weights=weights)
    return norm.part_norms(x, sizes, eps=eps, weights=weights)


def _metal_required() -> bool:
    return os.environ.get("LONGMAMBA_KERNEL") == "metal"
