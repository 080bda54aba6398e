"""What both scan kernels take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import mlx.core as mx

ARRAYS = ("x", "dt", "z", "A", "B", "C", "D", "dt_bias", "threshold", "state_in")
NAMES = (*ARRAYS, "dt_range", "sizes")


@lru_cache(maxsize=256, typed=True)
def numbers(*values: float) -> mx.array:
    """A few numbers as one small array, int32 or float32: a kernel has only 31 buffers. Made once, since every token
    of a decode step passes the same ones."""
    return mx.array(values)


@dataclass(frozen=True, slots=True)
class Coefficients:
    """What does not change with time: A (u, n) or, `per_head`, (u, 1), D and dt_bias (u,), all floating; threshold (u,)
    float32, where None filters nothing; bounds of dt. A unit u is a head, or a row of the only head."""

    A: mx.array
    D: mx.array
    dt_bias: mx.array
    threshold: mx.array | None
    dt_range: tuple[float, float]
    per_head: bool

    def inputs(
        self, x: mx.array, dt: mx.array, z: mx.array | None, B: mx.array, C: mx.array, state: mx.array
    ) -> list[mx.array]:
        """A scan kernel's inputs in the order of `ARRAYS`, then the range of dt and the sizes."""
        threshold = self.dt_bias if self.threshold is None else self.threshold  # read, not used
        sizes = (x.shape[1], x.shape[3], x.shape[2] // B.shape[2], int(self.threshold is not None))
        dt_range = numbers(float(self.dt_range[0]), float(self.dt_range[1]))
        arrays = [x, dt, x if z is None else z, self.A, B, C, self.D, self.dt_bias, threshold, state]
        return [*arrays, dt_range, numbers(*sizes)]
