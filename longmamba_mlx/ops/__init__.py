"""The operations of a filtered Mamba layer, with their arguments checked; `backend` decides how they run.

`selective_scan` (Mamba-1), `ssd_scan` (Mamba-2), `mamba3_scan`, `causal_conv1d`, `gated_rms_norm` and `dt_b_c_norms`
give the same results on every backend; `reference` is their specification.
"""

from __future__ import annotations

import mlx.core as mx

from longmamba_mlx.ops import backend, checks
from longmamba_mlx.ops.backend import in_numpy as numpy_backed
from longmamba_mlx.ops.backend import kernel
from longmamba_mlx.ops.backend import name as implementation
from longmamba_mlx.ops.inputs import Scan, ScanInputs, takes
from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs, Mamba3Scan, Mamba3State, Mimo

__all__ = [
    "Mamba3State",
    "Mimo",
    "causal_conv1d",
    "dt_b_c_norms",
    "gated_rms_norm",
    "implementation",
    "kernel",
    "mamba3_scan",
    "numpy_backed",
    "part_norms",
    "selective_scan",
    "ssd_scan",
]


@takes(ScanInputs)
def selective_scan(inputs: ScanInputs) -> Scan:
    """Mamba-1's selective scan with LongMamba's filter (arXiv 2312.00752, alg. 2; filter: arXiv 2504.16053).

    x, dt, z (b, l, d); A (d, n), negative; B, C (b, l, n); D, dt_bias, threshold (d,). dt is raw: before the
    bias and the softplus. A token is kept in a channel where dt + dt_bias > threshold (float32, strictly);
    elsewhere its dt is exactly 0, so that it neither decays the state nor writes to it. -inf: channel never
    filtered; None: no filter. `time_step_limit` clips the dt of kept tokens. `reverse` runs from the last
    token to the first. z gates: y silu(z).

    Returns y (b, l, d) in x's dtype, the state after the last token (b, d, n) float32 and, with
    `return_kept`, how many channels kept each token, (b, l) int32. dt, decay and state are float32 whatever
    the inputs. Raises ValueError, naming the argument, for a wrong shape, dtype or a NaN threshold.
    """
    checks.check_selective_scan(inputs)
    return backend.current(inputs.A.shape[1]).selective_scan(inputs)


@takes(ScanInputs)
def ssd_scan(inputs: ScanInputs) -> Scan:
    """Mamba-2's scan with LongMamba's filter (arXiv 2405.21060; filter: arXiv 2504.16053).

    x, z (b, l, h, p); dt (b, l, h); A (h,), negative; B, C (b, l, g, n) where g divides h; D, dt_bias,
    threshold (h,). Meaning, dtypes and errors as in `selective_scan`, per head. Returns y (b, l, h, p), the
    state (b, h, p, n) float32 and, with `return_kept`, how many heads kept each token, (b, l) int32.
    """
    checks.check_ssd_scan(inputs)
    return backend.current(inputs.B.shape[3]).ssd_scan(inputs)


@takes(Mamba3Inputs)
def mamba3_scan(inputs: Mamba3Inputs) -> Mamba3Scan:
    """Mamba-3's scan with LongMamba's filter (arXiv 2603.15569; the filter: docs/mamba3.md).

    x, z (b, l, h, p); dt, A, trap (b, l, h) and angle (b, l, s) depend on the token: dt raw, A negative, trap before
    its sigmoid and angle before its tanh; B, C (b, l, r, g, n), normed, where g divides h; B_bias, C_bias (h, r, n); D,
    dt_bias, threshold (h,). The rank r is 1 without `mimo`, whose parts are (h, r, p). The filter's meaning, dtypes and
    errors as in `ssd_scan`; a filtered token does not turn the angle either, and the trapezoid pairs the next kept
    token with the last kept one. With `A_floor` A is raw: the decay rate is 1 + A for A >= 0 and 1 / (1 - A) below,
    and at least A_floor.

    Returns y (b, l, h, p), gated by z where that is given, the state after the last token and, with `return_kept`, how
    many heads kept each token, (b, l) int32. With `mimo` and without z, y is (b, l, r, h, p): not yet projected back.
    """
    checks.check_mamba3_scan(inputs)
    return backend.current(inputs.B.shape[4]).mamba3_scan(inputs)


def causal_conv1d(
    x: mx.array, weight: mx.array, bias: mx.array | None = None, initial: mx.array | None = None
) -> tuple[mx.array, mx.array]:
    """silu(causal depthwise convolution), and the window to start the next call from.

    x (b, l, c); weight (c, k), oldest token first; bias (c,); initial (b, k-1, c): the raw inputs before x,
    zeros if None. Returns y (b, l, c) and the window (b, k-1, c), both in x's dtype. Raises ValueError naming
    the argument.
    """
    checks.check_conv(x, weight, bias, initial)
    return backend.current().causal_conv1d(x, weight, bias, initial)


def gated_rms_norm(
    y: mx.array, z: mx.array, weight: mx.array, *, groups: int, eps: float, norm_before_gate: bool = False
) -> mx.array:
    """Mamba-2's gated RMS norm, per group: norm(y silu(z)) weight, or norm(y) weight silu(z) with `norm_before_gate`.

    y, z (b, l, d_inner); weight (d_inner,). Raises ValueError naming the argument.
    """
    checks.check_norm(y, z, weight, groups, eps)
    return backend.current().gated_rms_norm(y, z, weight, groups=groups, eps=eps, norm_before_gate=norm_before_gate)


def dt_b_c_norms(
    x: mx.array,
    sizes: tuple[int, int, int],
    *,
    eps: float,
    weights: tuple[mx.array, mx.array, mx.array] | None = None,
) -> tuple[mx.array, mx.array, mx.array]:
    """The RMS norms of dt, B and C (Falcon-Mamba, Jamba).

    x (b, l, r + n + n), sizes (r, n, n); returns dt, B and C in float32. Raises ValueError naming the argument.
    """
    checks.check_dt_b_c_norms(x, sizes, weights, eps)
    return backend.current().dt_b_c_norms(x, sizes, eps=eps, weights=weights)


part_norms = dt_b_c_norms  # its name in 0.1
