"""The paper's rule in closed form: the same thresholds as the table's, continuous in the document's length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from longmamba_mlx.filtering.calibration.data import Calibration, LayerCalibration
from longmamba_mlx.filtering.constants import Constants
from longmamba_mlx.filtering.decay import log_decay
from longmamba_mlx.filtering.delta import scaled_threshold
from longmamba_mlx.filtering.layer_plan import LayerPlan, none_where_idle
from longmamba_mlx.filtering.policies.base import Option, positive, share
from longmamba_mlx.filtering.policies.global_units import CLAMP, FACTOR, Budget
from longmamba_mlx.filtering.thresholds import MassCurve, clamped_decay, clamped_window, curve_thresholds


@dataclass(frozen=True, kw_only=True)
class Curve(Budget):
    """`clamp`: any share, 0 for none; `threshold_factor`: the authors' b. Calibration windows are pooled."""

    name = "curve"
    options: ClassVar[tuple[Option, ...]] = (*Budget.options, CLAMP, FACTOR)

    clamp: float = 0.05
    threshold_factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        share(self, "clamp", "0.05 means 5 %.")
        positive(self, "threshold_factor")

    @classmethod
    def for_model(cls, constants: Constants, **options: Any) -> Self:
        return super().for_model(constants, **{"clamp": constants.clamp, **options})

    def plan_layer(self, calibration: Calibration, layer: LayerCalibration, total_length: int) -> LayerPlan:
        curve = MassCurve(calibration.ranks, layer.knot_raw, layer.knot_mass)
        dt_range = calibration.time_step_limit
        budgets, step_mean = layer.budgets, layer.step_mean
        if self.clamp > 0:
            pooled, steps = clamped_window(curve, self.clamp, layer.rates, dt_range)
            if layer.step_mean is not None and steps is None:  # Mamba-3
                steps = -clamped_decay(curve, self.clamp, *layer.rate_curves(), dt_range)
            budgets = (pooled / calibration.windows)[None].astype(np.float32)
            step_mean = None if steps is None else (steps / calibration.windows)[None].astype(np.float32)
        is_global = log_decay(budgets, layer.rates, step_mean, self.reduction, "pooled") > self.log_theta
        fraction = calibration.training_length * self.factor(calibration) / total_length
        values = curve_thresholds(curve, fraction, self.clamp, dt_range)
        values = scaled_threshold(values, self.threshold_factor, dt_range)
        return LayerPlan(is_global, none_where_idle(np.where(is_global, values, -np.inf)))
