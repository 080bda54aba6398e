"""The authors' recipe to the letter: thresholds from their table, for the nearest of its lengths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from longmamba_mlx.filtering.calibration.data import Calibration, LayerCalibration
from longmamba_mlx.filtering.calibration.paper_table import nearest_length, paper_active, paper_lengths
from longmamba_mlx.filtering.constants import Constants
from longmamba_mlx.filtering.decay import log_decay
from longmamba_mlx.filtering.delta import scaled_threshold
from longmamba_mlx.filtering.layer_plan import LayerPlan, none_where_idle
from longmamba_mlx.filtering.policies.base import FIRST_RECORD, Option, one_of, positive, share
from longmamba_mlx.filtering.policies.global_units import CLAMP, FACTOR, GlobalUnits


@dataclass(frozen=True, kw_only=True)
class Paper(GlobalUnits):
    """`clamp`: one that the calibration has a table for; `threshold_factor`: the authors' b; `combine`: whether
    calibration windows are combined by the mean of their thresholds and decays or by the largest."""

    name = "paper"
    options: ClassVar[tuple[Option, ...]] = (
        *GlobalUnits.options,
        CLAMP,
        FACTOR,
        Option("combine", "combine", str, "how calibration windows are combined: avg, max"),
    )
    recorded: ClassVar[Mapping[str, object]] = {**FIRST_RECORD, "reduction": "step_mean"}

    clamp: float = 0.05
    threshold_factor: float = 1.0
    combine: str = "avg"

    def __post_init__(self) -> None:
        super().__post_init__()
        share(self, "clamp", "0.05 means 5 %.")
        positive(self, "threshold_factor")
        one_of(self, "combine", ("avg", "max"))

    @classmethod
    def for_model(cls, constants: Constants, **options: Any) -> Self:
        return cls(**{"theta": constants.theta, "clamp": constants.clamp, **options})

    def is_active(self, training_length: int, total_length: int) -> bool:
        return super().is_active(training_length, total_length) and paper_active(training_length, total_length)

    def plan_layer(self, calibration: Calibration, layer: LayerCalibration, total_length: int) -> LayerPlan:
        table = layer.table(self.clamp)
        row = nearest_length(paper_lengths(calibration.training_length), total_length)
        logs = log_decay(table.budgets, layer.rates, table.step_mean, "step_mean", self.combine)
        is_global = logs > self.log_theta
        values = table.maximum[row] if self.combine == "max" else table.mean[row]
        values = scaled_threshold(values, self.threshold_factor, calibration.time_step_limit)
        return LayerPlan(is_global, none_where_idle(np.where(is_global, values, -np.inf)))

    def notices(self, calibration: Calibration, layers: tuple[LayerPlan, ...], total_length: int) -> tuple[str, ...]:
        found = super().notices(calibration, layers, total_length)
        longest = paper_lengths(calibration.training_length)[-1]
        if found or self.by_default or total_length <= longest:  # who takes the default need not hear of its table
            return found
        return (
            f"The authors' table ends at {longest:,} tokens: "
            f"its last thresholds are used for the {total_length:,} of this document.",
        )
