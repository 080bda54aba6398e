"""Whether this machine's Metal kernels can be trusted; where they cannot, plain MLX takes over with one warning.

Metal compiles a kernel, and refuses a launch, when MLX evaluates it. Three nets catch what goes wrong: a small case of
every kernel before the first use, the very kernels of a model when it is loaded, and `give_up` for an error that comes
up later (`fallback`).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from functools import lru_cache
from typing import Any

import mlx.core as mx
import numpy as np

import longmamba_mlx.metal_kernels as metal_kernels
from longmamba_mlx.errors import NoMLXError
from longmamba_mlx.ops import conv, metal, norm, reference
from longmamba_mlx.ops.inputs import ScanInputs
from longmamba_mlx.ops.mamba3 import scan_shapes as mamba3_shapes
from longmamba_mlx.ops.mamba3.inputs import Mamba3Scan
from longmamba_mlx.ops.mamba3.scan_shapes import Mamba3Shape
from longmamba_mlx.ops.scan_shapes import ScanShape, random_inputs
from longmamba_mlx.ops.values import values

# Relative to the largest value. float32 kernels agree to 1e-6; 16-bit y to a unit in the last place.
_TOLERANCE = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 1.6e-2}
# What MLX and Metal say where memory runs out, which no kernel is the cause of.
_OUT_OF_MEMORY = ("alloc", "insufficient memory", "outofmemory")
_LENGTHS = (1, 70)  # a token of an answer; a chunk and some tokens more

_refusals: list[str] = []  # why the kernels are off for the rest of this process


def usable(*, required: bool) -> bool:
    """True where the kernels compile, run and agree with the reference on a small case (tried once), and nothing has
    turned them off since.

    Where they do not, plain MLX takes over with one warning, or NoMLXError is raised when `required`.
    """
    available = metal_kernels.is_available()
    if available and not _refusals:
        _works()
    problem = next(iter(_refusals), "") if available else "no Metal device"
    if problem and required:
        raise NoMLXError(
            f"The Metal kernels cannot be used: {problem}.", hint="Unset LONGMAMBA_KERNEL to run without them."
        )
    return not problem


def check_model(shape: ScanShape | Mamba3Shape) -> None:
    """Run the scan kernels that a model with this scan will use, on few heads, and compare them with the reference.

    Where they fail or disagree, all kernels are off from now on, with one warning. Does nothing where they are off.
    """
    if not on():
        return
    try:
        worst = max(_difference(shape.smallest(), length, counted) for length in _LENGTHS for counted in (False, True))
    except (RuntimeError, ValueError) as error:
        _refuse(_first_line(error))
        return
    if not worst <= 1.0:
        _refuse(f"they differ from the reference by {worst:.1e} times what is allowed")


def on() -> bool:
    """True where the kernels are in use, or would be: there is a GPU, and nothing has turned them off."""
    return metal_kernels.is_available() and not _refusals


def give_up(error: Exception) -> bool:
    """After an error of MLX in work that began with kernels: True if they may be the cause, and are off from now on,
    with one warning."""
    text = str(error).lower()
    if not metal_kernels.is_available() or not isinstance(error, RuntimeError | ValueError):
        return False
    if isinstance(error, ValueError) and "thread" not in text:  # a mistake of a caller
        return False
    if any(words in text for words in _OUT_OF_MEMORY):
        return False
    if on():
        _refuse(_first_line(error))
    return True


def reset() -> None:
    """Forget what was found, so that everything is tried again."""
    _refusals.clear()
    _works.cache_clear()


def _refuse(problem: str) -> None:
    _refusals.append(problem)
    warnings.warn(f"longmamba-mlx: Metal kernels are off ({problem}); plain MLX is used", stacklevel=3)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["unknown error"])[0][:200]


@lru_cache(maxsize=1)
def _works() -> bool:
    """Whether a small case passes; remembered, and a refusal where it does not."""
    try:
        difference = _difference_from_reference()
    except (RuntimeError, ValueError) as error:
        _refuse(_first_line(error))
        return False
    if not difference < 1e-4:
        _refuse(f"they differ from the reference by {difference:.1e}")
    return difference < 1e-4


def _difference(shape: ScanShape | Mamba3Shape, length: int, counted: bool) -> float:
    """The largest difference from the reference in a scan of this shape, as a multiple of what is allowed."""
    if isinstance(shape, Mamba3Shape):
        of_tokens = replace(mamba3_shapes.random_inputs(shape, length), return_kept=counted)
        scan, expected = (_flat(module.mamba3_scan(of_tokens)) for module in (metal, reference))
    else:
        inputs = random_inputs(shape, length)._replace(return_kept=counted)
        scan, expected = (
            (module.ssd_scan if shape.per_head else module.selective_scan)(inputs) for module in (metal, reference)
        )
    allowed = (_TOLERANCE[shape.dtype], _TOLERANCE["float32"], 0.5)
    differences = [_relative(a, b) / most for a, b, most in zip(scan[:2], expected[:2], allowed, strict=False)]
    if counted:
        differences.append(mx.abs(scan[2] - expected[2]).max().astype(mx.float32) / allowed[2])
    worst = values(mx.stack(differences)).max()
    return math.inf if np.isnan(worst) else float(worst)


def _flat(result: Mamba3Scan) -> tuple[mx.array, ...]:
    """y, all of the state but its angle in one row, and kept counts where there are any."""
    y, state, *kept = result
    parts = (state.ssm, state.k, state.v)  # a wrong angle shows in k
    return y, mx.concatenate([part.reshape(-1) for part in parts]), *kept


def _relative(value: mx.array, expected: mx.array) -> mx.array:
    wide = expected.astype(mx.float32)
    return mx.abs(value.astype(mx.float32) - wide).max() / mx.abs(wide).max()


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
    turning = mamba3_shapes.random_inputs(Mamba3Shape(2, 6, 16, 2, 4, mimo=True, dtype="float32"), 37)
    mine = [*metal.selective_scan(channels), *metal.ssd_scan(heads), *metal.causal_conv1d(x, taps)]
    mine += _flat(metal.mamba3_scan(turning))
    mine += [metal.gated_rms_norm(x, dt, taps[:, 0], **grouped), *metal.dt_b_c_norms(x, (8, 16, 16), eps=1e-5)]
    expected = [*reference.selective_scan(channels), *reference.ssd_scan(heads), *conv.causal_conv1d(x, taps)]
    expected += _flat(reference.mamba3_scan(turning))
    expected += [norm.gated_rms_norm(x, dt, taps[:, 0], **grouped), *norm.dt_b_c_norms(x, (8, 16, 16), eps=1e-5)]
    differences = [mx.abs(a - b).max() / mx.abs(b).max() for a, b in zip(mine, expected, strict=True)]
    worst = values(mx.stack(differences)).max()
    return math.inf if np.isnan(worst) else float(worst)
