"""Argument checks of the public ops: every mistake is a ValueError that names the argument."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np

from longmamba_mlx.ops.inputs import DtRange, ScanInputs

_FLOATS = (mx.float32, mx.float16, mx.bfloat16)


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
    if not inputs.x.shape[1]:
        raise ValueError(f"{op}: x holds no token")
    if 0 in state_shape:
        raise ValueError(f"{op}: x, A and B leave a state of shape {state_shape}, which holds nothing")
    _check_dt_range(op, inputs.time_step_limit)
    _check_shapes(op, {"initial_state": (inputs.initial_state, state_shape)})
    # A threshold rounded to 16 bits would decide ties with the data differently; a 16-bit state would lose small
    # updates.
    for name, array in (("threshold", inputs.threshold), ("initial_state", inputs.initial_state)):
        if array is not None and array.dtype != mx.float32:
            raise ValueError(f"{op}: {name} has dtype {array.dtype}, expected float32")
    if inputs.threshold is not None and _holds_nan(inputs.threshold):
        raise ValueError(f"{op}: threshold holds NaN")


def _check_dt_range(op: str, dt_range: DtRange) -> None:
    try:
        low, high = map(float, dt_range)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not 0.0 <= low < high:
        raise ValueError(f"{op}: time_step_limit is {dt_range}, expected two numbers, 0 <= low < high")


def _holds_nan(array: mx.array) -> bool:
    """Looks at the values without a device launch. Inside a traced function there are none to look at."""
    try:
        return bool(np.isnan(np.asarray(array)).any())
    except (ValueError, RuntimeError):
        return False
