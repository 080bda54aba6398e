"""The scans through Metal kernels, and whether this machine's Metal can be trusted with them."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache

import mlx.core as mx
import numpy as np

from longmamba_mlx import metal_kernels
from longmamba_mlx.errors import NoMLXError
from longmamba_mlx.metal_kernels import selective_scan as kernel
from longmamba_mlx.ops import reference
from longmamba_mlx.ops.reference import Limit, Scan


def usable(*, required: bool) -> bool:
    """True where the kernels compile, run and agree with the reference on a small case (tried once).

    Where they do not, plain MLX takes over with one warning, or NoMLXError is raised when `required`.
    """
    problem = _problem()
    if problem is None:
        return True
    if required:
        raise NoMLXError(
            f"the Metal kernels cannot be used: {problem}", hint="unset LONGMAMBA_KERNEL to run without them"
        )
    return False


@lru_cache(maxsize=1)
def _problem() -> str | None:
    if not metal_kernels.is_available():
        return "no Metal device"
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
    """Largest difference in y and state on 37 tokens, 40 channels, half of the steps filtered."""
    keys = mx.random.split(mx.random.key(7), 6)
    x, dt = (mx.random.normal((1, 37, 40), key=key) for key in keys[:2])
    b_in, c_out = (mx.random.normal((1, 37, 16), key=key) for key in keys[2:4])
    rate = -mx.exp(mx.random.normal((40, 16), key=keys[4]))
    arguments = (x, dt, rate, b_in, c_out, mx.ones((40,)), x, None, mx.zeros((40,)))
    mine = selective_scan(*arguments)
    expected = reference.selective_scan(*arguments)
    differences = [mx.abs(a - b).max() for a, b in zip(mine, expected, strict=True)]
    worst = np.asarray(mx.stack(differences)).max()
    return math.inf if np.isnan(worst) else float(worst)


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
    time_step_limit: Limit = (0.0, math.inf),
    reverse: bool = False,
    return_kept: bool = False,
) -> Scan:
    """As `reference.selective_scan`, in one launch."""
    batch, _, channels = x.shape
    state_shape = (batch, channels, A.shape[1])
    y, state, kept = kernel.selective_scan(
        x,
        dt,
        z,
        A.astype(mx.float32),
        B,
        C,
        _per_channel(D, channels, 0.0),
        _per_channel(dt_bias, channels, 0.0),
        _per_channel(threshold, channels, -math.inf),
        mx.zeros(state_shape) if initial_state is None else initial_state.astype(mx.float32),
        mx.array(time_step_limit, dtype=mx.float32),
        reverse=reverse,
        return_kept=return_kept and threshold is not None,
    )
    if not return_kept:
        return y, state
    return y, state, kept if threshold is not None else mx.full(x.shape[:2], channels, dtype=mx.int32)


def _per_channel(vector: mx.array | None, channels: int, default: float) -> mx.array:
    return mx.full((channels,), default) if vector is None else vector.astype(mx.float32)
