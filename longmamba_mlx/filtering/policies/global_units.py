"""Common part of the policies after LongMamba: only global units, those that remember over a training window, are
filtered; a budget is the sum of step sizes over such a window."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from longmamba_mlx.filtering.calibration.data import Calibration
from longmamba_mlx.filtering.constants import Constants
from longmamba_mlx.filtering.layer_plan import LayerPlan
from longmamba_mlx.filtering.policies.base import FIRST_RECORD, Option, Policy, not_negative, one_of, positive, share

REDUCTIONS = ("step_mean", "slowest", "mean_prod")
COMBINATIONS = ("avg", "max", "pooled")


def _from_nats(text: str) -> float:
    return math.exp(-float(text))


CLAMP = Option(
    "clamp",
    "clamp",
    float,
    "share of the largest step sizes that are clamped; with paper, one that was calibrated",
)
FACTOR = Option("b", "threshold_factor", float, "multiplies the threshold on dt")


@dataclass(frozen=True, kw_only=True)
class GlobalUnits(Policy):
    """`theta`: a unit is global when its decay over one training window exceeds it; in [0, 1), 0: all are."""

    options: ClassVar[tuple[Option, ...]] = (
        *Policy.options,
        Option("theta", "theta", float, "a unit is global when its decay over a training window exceeds theta"),
        Option("nats", "theta", _from_nats, "theta as -ln theta"),
    )
    recorded = FIRST_RECORD

    theta: float = 5e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        share(self, "theta")

    @property
    def log_theta(self) -> float:
        """ln theta, -inf for 0: 1e-30 and far less are compared in logs, where nothing underflows."""
        return math.log(self.theta) if self.theta > 0 else -math.inf

    def notices(self, calibration: Calibration, layers: tuple[LayerPlan, ...], total_length: int) -> tuple[str, ...]:
        if any(layer.is_global.any() for layer in layers):
            return ()
        return ("No part of this model remembers beyond its training length at this theta: nothing is filtered.",)


@dataclass(frozen=True, kw_only=True)
class Budget(GlobalUnits):
    """A policy with a budget T of step sizes for each global unit.

    `reduction`: how a Mamba-1 unit's modes become one decay. `budget_factor` multiplies T; `budget_window`: the tokens
    that T is made for, 0 for a training window (a longer one reaches further back for less recency).
    """

    options: ClassVar[tuple[Option, ...]] = (
        *GlobalUnits.options,
        Option("r", "budget_factor", float, "multiplies the budget"),
        Option("window", "budget_window", int, "length in tokens that the budget is made for"),
        Option("reduction", "reduction", str, f"how the modes of a Mamba-1 unit are combined: {', '.join(REDUCTIONS)}"),
    )

    reduction: str = "slowest"
    budget_factor: float = 1.0
    budget_window: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "reduction", REDUCTIONS)
        positive(self, "budget_factor")
        not_negative(self, "budget_window")

    @classmethod
    def for_model(cls, constants: Constants, **options: Any) -> Self:
        by_steps = options.get("reduction") == "step_mean"
        return cls(**{"theta": constants.theta if by_steps else constants.slowest_theta, **options})

    def factor(self, calibration: Calibration) -> float:
        """The factor on the measured budget of a training window."""
        window = self.budget_window or calibration.training_length
        return self.budget_factor * window / calibration.training_length
