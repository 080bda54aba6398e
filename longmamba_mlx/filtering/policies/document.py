"""The budget of a training window met on the document's own step sizes, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.filtering.calibration.data import Calibration, LayerCalibration
from longmamba_mlx.filtering.decay import log_decay
from longmamba_mlx.filtering.delta import DtRange, Float32
from longmamba_mlx.filtering.layer_plan import LayerPlan, none_where_idle
from longmamba_mlx.filtering.policies.base import FIRST_RECORD, Option, one_of
from longmamba_mlx.filtering.policies.global_units import COMBINATIONS, Budget
from longmamba_mlx.filtering.thresholds import document_thresholds


@dataclass(frozen=True, kw_only=True)
class Document(Budget):
    """`combine`: how calibration windows become one decay and one budget."""

    name = "document"
    options: ClassVar[tuple[Option, ...]] = (
        *Budget.options,
        Option("combine", "combine", str, f"how calibration windows are combined: {', '.join(COMBINATIONS)}"),
    )
    recorded: ClassVar[Mapping[str, object]] = {**FIRST_RECORD, "clamp": 0.0}

    combine: str = "pooled"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "combine", COMBINATIONS)

    def plan_layer(self, calibration: Calibration, layer: LayerCalibration, total_length: int) -> LayerPlan:
        logs = log_decay(layer.budgets, layer.rates, layer.step_mean, self.reduction, self.combine)
        is_global, budgets = logs > self.log_theta, self.budgets(calibration, layer)
        find = partial(
            _thresholds,
            units=np.flatnonzero(is_global),
            budgets=budgets,
            span=self.span(total_length),
            total=total_length,
            dt_range=calibration.time_step_limit,
        )
        return LayerPlan(is_global, find=find if is_global.any() else None, identity=budgets.astype("<f4").tobytes())

    def budgets(self, calibration: Calibration, layer: LayerCalibration) -> Float32:
        """The sum of step sizes (units,) that a document may have in each unit."""
        wide = layer.budgets.astype(np.float64)
        budgets = wide.max(axis=0) if self.combine == "max" else wide.mean(axis=0)
        return np.asarray(budgets * self.factor(calibration), np.float32)


def _thresholds(
    raw: Float32,
    *,
    units: NDArray[np.intp],
    budgets: Float32,
    span: tuple[int, int],
    total: int,
    dt_range: DtRange,
) -> Float32 | None:
    """Thresholds that keep the budget of a document, or of a sample of its tokens, in the units given."""
    thresholds = np.full(raw.shape[1], -np.inf, np.float32)
    first, stop = span
    if len(raw) == total:
        if first == stop:
            return None
        raw = raw[first:stop]
    sampled = min(1.0, len(raw) / max(1, stop - first))
    thresholds[units] = document_thresholds(raw, units, budgets[units].astype(np.float64) * sampled, dt_range)
    return none_where_idle(thresholds)
