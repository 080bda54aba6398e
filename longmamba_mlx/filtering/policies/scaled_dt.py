"""One factor on dt in all layers, a baseline: a long document's steps sum to what those of a training window do.

The simplest of what MambaExtend (ICLR 2025) learns: a scale of dt for each layer, there found by optimisation on long
samples, here one number known beforehand. Nothing is left out; every token decays and writes less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from longmamba_mlx.filtering.calibration.data import Calibration, LayerCalibration
from longmamba_mlx.filtering.layer_plan import LayerPlan
from longmamba_mlx.filtering.policies.base import Option, Policy, not_negative


@dataclass(frozen=True, kw_only=True)
class ScaledDt(Policy):
    """`factor`: what dt is multiplied with, 0 for the training length over the document's."""

    name = "scaled-dt"
    options: ClassVar[tuple[Option, ...]] = (
        *Policy.options,
        Option("factor", "factor", float, "factor of dt (default: training length / document length)"),
    )

    factor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative(self, "factor")

    def plan_layer(self, calibration: Calibration, layer: LayerCalibration, total_length: int) -> LayerPlan:
        factor = self.factor or calibration.training_length / total_length
        return LayerPlan.scaled(layer.units, decay=factor, write=factor)
