"""The filter of one layer of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.filtering.delta import Float, Float32

ThresholdRule = Callable[[Float32], Float32 | None]
"""raw (S, units) float32, a document's dt + dt_bias -> thresholds (units,) float32; None: nothing filtered."""

DropRule = Callable[[Float32], NDArray[np.intp] | None]
"""raw (S', units) float32 of the tokens that the layers below have left -> the positions that stay; None: all."""


Factors = tuple[Float32, float]
"""What A is multiplied with, (units, modes) or () for all alike, and what B is."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerPlan:
    """One layer of a plan.

    is_global (units,) bool: the units that may be filtered; thresholds (units,) float32 raw, None for no filter. Two
    rules need the document's own step sizes: `find` gives the thresholds, `drop` the only tokens that stay in this
    layer and all above. `factors`: what A and B are multiplied with while these tokens are read. `identity`: what the
    rules depend on, for digests.
    """

    is_global: NDArray[np.bool_]
    thresholds: Float32 | None = None
    find: ThresholdRule | None = None
    drop: DropRule | None = None
    factors: Factors | None = None
    identity: bytes = b"-"

    @classmethod
    def idle(cls, units: int) -> LayerPlan:
        """A layer in which nothing is filtered."""
        return cls(np.zeros(units, np.bool_))

    @classmethod
    def scaled(cls, units: int, *, decay: float | Float, write: float = 1.0) -> LayerPlan:
        """A layer without thresholds, whose A is multiplied by `decay`, one number or (units, modes), and whose B by
        `write`; the same number for both multiplies dt."""
        factors = np.asarray(decay, np.float32), float(write)
        identity = b"-*" + factors[0].astype("<f4").tobytes() + repr(factors[1]).encode()
        return cls(np.zeros(units, np.bool_), factors=factors, identity=identity)

    @property
    def is_idle(self) -> bool:
        """Whether the layer runs as if there were no filter."""
        return self.thresholds is None and self.find is None and self.drop is None and self.factors is None


def none_where_idle(thresholds: Float) -> Float32 | None:
    """Thresholds as float32; None where all are -inf, so that the scan can be told that nothing is filtered."""
    values = np.asarray(thresholds, np.float32)
    return values if bool((values > -np.inf).any()) else None
