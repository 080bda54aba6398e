"""Argument checks of the public ops: every mistake is a ValueError that names the argument."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.ops.inputs import DtRange, ScanInputs
from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs, Mamba3State

_FLOATS = (mx.float32, mx.float16, mx.bfloat16)


def threshold_array(values: NDArray[np.float32] | None, units: int) -> mx.array | None:
    """A layer's thresholds (units,) as the scans take them, looked at once; None: no filter.

    Raises ValueError for another shape, and for NaN, which would filter every token without a word.
    """
    if values is None:
        return None
    if values.shape != (units,) or values.dtype != np.float32 or np.isnan(values).any():
        raise ValueError(f"thresholds of shape {values.shape} in {values.dtype}: expected ({units},) float32, no NaN")
    return mx.array(values)


def check_selective_scan(inputs: ScanInputs) -> None:
    """Shapes and dtypes of Mamba-1's scan."""
    op = "selective_scan"
    batch, length, channels = _dimensions(op, "x", inputs.x, "b, l, d")
    size = _dimensions(op, "A", inputs.A, "d, n")[1]
    expected = {
        "dt": (batch, length, channels),
        "z": (batch, length, channels),
        "A": (channels, size),
        "B": (batch, length, size),
        "C": (batch, length, size),
    }
    _check_scan(op, inputs, expected, channels, (batch, channels, size))


def check_ssd_scan(inputs: ScanInputs) -> None:
    """Shapes and dtypes of Mamba-2's scan."""
    op = "ssd_scan"
    batch, length, heads, width = _dimensions(op, "x", inputs.x, "b, l, h, p")
    groups, size = _dimensions(op, "B", inputs.B, "b, l, g, n")[2:]
    if not groups or heads % groups:
        raise ValueError(f"{op}: B has {groups} groups, which does not divide {heads} heads")
    expected = {
        "dt": (batch, length, heads),
        "z": (batch, length, heads, width),
        "A": (heads,),
        "B": (batch, length, groups, size),
        "C": (batch, length, groups, size),
    }
    _check_scan(op, inputs, expected, heads, (batch, heads, width, size))


def check_mamba3_scan(inputs: Mamba3Inputs) -> None:
    """Shapes of Mamba-3's scan."""
    op = "mamba3_scan"
    batch, length, heads, width = _dimensions(op, "x", inputs.x, "b, l, h, p")
    rank, groups, size = _dimensions(op, "B", inputs.B, "b, l, r, g, n")[2:]
    angles = _dimensions(op, "angle", inputs.angle, "b, l, s")[2]
    if not groups or heads % groups:
        raise ValueError(f"{op}: B has {groups} groups, which does not divide {heads} heads")
    if not 1 <= angles <= size // 2:
        raise ValueError(f"{op}: angle turns {angles} pairs, expected 1 to half of the state size {size}")
    if size % 2:
        raise ValueError(f"{op}: B has an odd state size {size}, whose dimensions cannot turn in pairs")
    if inputs.mimo is None and rank != 1:
        raise ValueError(f"{op}: B has rank {rank}, but there is no mimo")
    per_head = {"dt": inputs.dt, "A": inputs.A, "trap": inputs.trap}
    expected: dict[str, tuple[mx.array | None, tuple[int, ...]]] = {
        **{name: (array, (batch, length, heads)) for name, array in per_head.items()},
        "angle": (inputs.angle, (batch, length, angles)),
        "B": (inputs.B, (batch, length, rank, groups, size)),
        "C": (inputs.C, (batch, length, rank, groups, size)),
        "B_bias": (inputs.B_bias, (heads, rank, size)),
        "C_bias": (inputs.C_bias, (heads, rank, size)),
    }
    _check_shapes(op, expected, needed=tuple(expected))
    units = {"D": inputs.D, "dt_bias": inputs.dt_bias, "threshold": inputs.threshold}
    optional = {name: (vector, (heads,)) for name, vector in units.items()}
    _check_shapes(op, {**optional, "z": (inputs.z, (batch, length, heads, width))})
    if inputs.mimo is not None:
        parts = {"mimo.x": inputs.mimo.x, "mimo.z": inputs.mimo.z, "mimo.out": inputs.mimo.out}
        _check_shapes(op, {name: (array, (heads, rank, width)) for name, array in parts.items()}, needed=tuple(parts))
    _check_nothing_is_missing(op, length, (batch, heads, width, size))
    _check_threshold(op, inputs.threshold)
    if inputs.A_floor is not None and not 0.0 <= inputs.A_floor < math.inf:
        raise ValueError(f"{op}: A_floor is {inputs.A_floor}, expected a number of at least 0")
    if inputs.initial_state is not None:
        like = Mamba3State.zeros(batch, heads, width, size, rank, angles)
        for name, given, known in zip(like.names, inputs.initial_state.arrays(), like.arrays(), strict=True):
            if given.shape != known.shape or given.dtype != known.dtype:
                found, wanted = f"{given.shape} {given.dtype}", f"{known.shape} {known.dtype}"
                raise ValueError(f"{op}: initial_state.{name} is {found}, expected {wanted}")


def check_conv(x: mx.array, weight: mx.array, bias: mx.array | None, initial: mx.array | None) -> None:
    """Shapes of `causal_conv1d`."""
    op = "causal_conv1d"
    batch, length, channels = _dimensions(op, "x", x, "b, l, c")
    taps = _dimensions(op, "weight", weight, "c, k")[1]
    if 0 in (batch, length, channels, taps):
        raise ValueError(f"{op}: x of shape {x.shape} and weight of shape {weight.shape} hold nothing")
    _check_shapes(
        op,
        {
            "weight": (weight, (channels, taps)),
            "bias": (bias, (channels,)),
            "initial": (initial, (batch, taps - 1, channels)),
        },
    )


def check_norm(y: mx.array, z: mx.array, weight: mx.array, groups: int, eps: float) -> None:
    """Shapes of `gated_rms_norm`."""
    op = "gated_rms_norm"
    batch, length, width = _dimensions(op, "y", y, "b, l, d")
    if not y.size:
        raise ValueError(f"{op}: y of shape {y.shape} holds nothing")
    _check_shapes(op, {"z": (z, (batch, length, width)), "weight": (weight, (width,))}, needed=("z", "weight"))
    _check_eps(op, eps)
    if not isinstance(groups, int) or groups < 1 or width % groups:
        raise ValueError(f"{op}: y has {width} channels, which {groups} groups do not divide")


def check_dt_b_c_norms(
    x: mx.array, sizes: tuple[int, int, int], weights: tuple[mx.array, mx.array, mx.array] | None, eps: float
) -> None:
    """Shapes of `dt_b_c_norms`."""
    op = "dt_b_c_norms"
    width = _dimensions(op, "x", x, "b, l, r + n + n")[2]
    if not x.size:
        raise ValueError(f"{op}: x of shape {x.shape} holds nothing")
    _check_eps(op, eps)
    if len(sizes) != 3 or any(not isinstance(size, int) or size < 1 for size in sizes) or sum(sizes) != width:
        raise ValueError(f"{op}: sizes are {sizes}, expected three numbers above 0 that add up to x's {width} channels")
    if weights is None:
        return
    if len(weights) != 3:
        raise ValueError(f"{op}: {len(weights)} weights, expected 3 or None")
    named = zip(("dt", "B", "C"), weights, sizes, strict=True)
    _check_shapes(op, {f"the weight of {name}": (weight, (size,)) for name, weight, size in named})


def _dimensions(op: str, name: str, array: mx.array, letters: str) -> tuple[int, ...]:
    _check_float(op, name, array)
    if array.ndim != letters.count(",") + 1:
        raise ValueError(f"{op}: {name} has shape {array.shape}, expected ({letters})")
    return tuple(array.shape)


def _check_eps(op: str, eps: float) -> None:
    if not isinstance(eps, int | float) or not 0.0 <= eps < math.inf:
        raise ValueError(f"{op}: eps is {eps}, expected a number of at least 0")


def _check_float(op: str, name: str, array: object) -> None:
    if not isinstance(array, mx.array):
        raise ValueError(f"{op}: {name} must be an mx.array, not {type(array).__name__}")
    if array.dtype not in _FLOATS:
        raise ValueError(f"{op}: {name} has dtype {array.dtype}, expected float32, float16 or bfloat16")


def _check_shapes(
    op: str, expected: dict[str, tuple[mx.array | None, tuple[int, ...]]], needed: tuple[str, ...] = ()
) -> None:
    """`expected` holds what is given and its shape; None passes for what is not `needed`."""
    for name, (array, shape) in expected.items():
        if array is None and name not in needed:
            continue
        _check_float(op, name, array)
        if array is not None and array.shape != shape:
            raise ValueError(f"{op}: {name} has shape {array.shape}, expected {shape}")


def _check_scan(
    op: str, inputs: ScanInputs, expected: dict[str, tuple[int, ...]], units: int, state_shape: tuple[int, ...]
) -> None:
    """What both scans have in common; `expected` holds the shapes of the arguments that have a value for each token."""
    vectors = dict.fromkeys(("D", "dt_bias", "threshold"), (units,))
    given = {name: (getattr(inputs, name), shape) for name, shape in {**expected, **vectors}.items()}
    _check_shapes(op, given, needed=("dt", "A", "B", "C"))
    _check_nothing_is_missing(op, inputs.x.shape[1], state_shape)
    _check_dt_range(op, inputs.time_step_limit)
    _check_shapes(op, {"initial_state": (inputs.initial_state, state_shape)})
    # A 16-bit state would lose small updates.
    _check_float32(op, "initial_state", inputs.initial_state)
    _check_threshold(op, inputs.threshold)


def _check_nothing_is_missing(op: str, length: int, state_shape: tuple[int, ...]) -> None:
    if not length:
        raise ValueError(f"{op}: x holds no token")
    if 0 in state_shape:
        raise ValueError(f"{op}: x, A and B leave a state of shape {state_shape}, which holds nothing")


def _check_threshold(op: str, threshold: mx.array | None) -> None:
    # Rounded to 16 bits it would decide ties with the data differently.
    _check_float32(op, "threshold", threshold)
    if threshold is not None and _holds_nan(threshold):
        raise ValueError(f"{op}: threshold holds NaN")


def _check_float32(op: str, name: str, array: mx.array | None) -> None:
    if array is not None and array.dtype != mx.float32:
        raise ValueError(f"{op}: {name} has dtype {array.dtype}, expected float32")


def _check_dt_range(op: str, dt_range: DtRange) -> None:
    try:
        low, high = map(float, dt_range)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not 0.0 <= low < high:
        raise ValueError(f"{op}: time_step_limit is {dt_range}, expected two numbers, 0 <= low < high")


def _holds_nan(array: mx.array) -> bool:
    """Whether a value is NaN, found without a device launch. Inside a traced function there are no values: False."""
    try:
        return bool(np.isnan(np.asarray(array)).any())
    except (ValueError, RuntimeError):
        return False
