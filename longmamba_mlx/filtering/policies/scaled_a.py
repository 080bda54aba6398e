"""One factor on A in each layer, a baseline after Mamba Modulation (arXiv 2509.19633).

There a factor for each layer is found by optimisation on long samples; here they are given, or one number known
beforehand for all: a document then decays as much as a training window does. Tokens write as much as ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from longmamba_mlx.errors import UsageError
from longmamba_mlx.filtering.calibration.data import Calibration
from longmamba_mlx.filtering.layer_plan import LayerPlan
from longmamba_mlx.filtering.policies.base import Option, Policy


def _factors(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.split("+"))


@dataclass(frozen=True, kw_only=True)
class ScaledA(Policy):
    """`factors`: what A is multiplied with in the layers that have a scan, one for each or one for all; () for the
    training length over the document's."""

    name = "scaled-a"
    options: ClassVar[tuple[Option, ...]] = (
        *Policy.options,
        Option(
            "factors",
            "factors",
            _factors,
            "factor of A, one or one per layer, as in 0.5+1 (default: as for dt)",
        ),
    )

    factors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        wrong = [factor for factor in self.factors if not (factor > 0 and math.isfinite(factor))]
        if wrong:
            raise UsageError(f"Factors must be positive numbers, not {wrong[0]}.")

    def plan_layers(self, calibration: Calibration, total_length: int) -> tuple[LayerPlan, ...]:
        scans = sum(layer.units > 0 for layer in calibration.layers)
        factors = self.factors or (calibration.training_length / total_length,)
        if len(factors) not in (1, scans):
            raise UsageError(f"scaled-a has {len(factors)} factors.", hint=f"The model has {scans} layers with a scan.")
        each = iter(factors if len(factors) == scans else factors * scans)
        return tuple(
            LayerPlan.scaled(layer.units, decay=next(each)) if layer.units else LayerPlan.idle(0)
            for layer in calibration.layers
        )
