"""From MLX to NumPy without losing an error."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray


def values(array: mx.array) -> NDArray[Any]:
    """Compute `array` and return a copy of its values. Raises what MLX raises.

    NumPy alone may hide an error of an array that is not computed yet, and show whatever the memory holds (MLX 0.32).
    """
    mx.eval(array)
    return np.array(array)
