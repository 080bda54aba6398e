"""MLX arrays to NumPy and back."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.ops.cpu.numpy_ops import Array


def to_numpy(array: mx.array) -> Array:
    """The values in float32: the array's own memory where it is float32 already. Never write to it.

    Raises what MLX raises: NumPy alone may hide an error of an array that is not computed yet (`ops.values`).
    """
    if array.dtype != mx.float32:
        array = array.astype(mx.float32)
    mx.eval(array)
    return np.asarray(array)


def to_mlx(array: NDArray[Any], dtype: mx.Dtype = mx.float32) -> mx.array:
    """An mx.array holding a copy of the values."""
    result = mx.array(array)
    return result if result.dtype == dtype else result.astype(dtype)
