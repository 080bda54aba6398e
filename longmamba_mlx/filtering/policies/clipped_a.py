"""The extremes of A clipped in each layer to a range of its percentiles, a baseline that needs no data.

Decay rates outside the range are the ones that carry too much, or forget at once, when a text is far longer than those
of training. The idea is that of a public note on winsorising the transition spectrum; which percentiles it takes is not
known here, and those below are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from longmamba_mlx.errors import UsageError
from longmamba_mlx.filtering.calibration.data import Calibration, LayerCalibration
from longmamba_mlx.filtering.layer_plan import LayerPlan
from longmamba_mlx.filtering.policies.base import Option, Policy


@dataclass(frozen=True, kw_only=True)
class ClippedA(Policy):
    """`low`, `high`: percentiles of a layer's |A| that it is clipped to."""

    name = "clipped-a"
    options: ClassVar[tuple[Option, ...]] = (
        *Policy.options,
        Option("low", "low", float, "percentile to which lower decay rates of a layer are raised (default: 10)"),
        Option("high", "high", float, "percentile to which higher decay rates of a layer are cut (default: 90)"),
    )

    low: float = 10.0
    high: float = 90.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.low < self.high <= 100:
            hint = "0 <= low < high <= 100; 0 and 100 clip nothing."
            raise UsageError(f"Invalid percentiles {self.low:g} and {self.high:g}.", hint=hint)

    def plan_layer(self, calibration: Calibration, layer: LayerCalibration, total_length: int) -> LayerPlan:
        if not layer.units:
            return LayerPlan.idle(0)
        rates = layer.rates.astype(np.float64)
        clipped = np.clip(rates, *np.percentile(rates, (self.low, self.high)))
        return LayerPlan.scaled(layer.units, decay=np.divide(clipped, rates, out=np.ones_like(rates), where=rates > 0))
