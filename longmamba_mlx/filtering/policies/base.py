"""The interface of filter policies: options with their checks, and a plan for each layer of a document of a length."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

from longmamba_mlx.errors import UsageError
from longmamba_mlx.filtering.calibration.data import Calibration, LayerCalibration
from longmamba_mlx.filtering.constants import Constants
from longmamba_mlx.filtering.layer_plan import LayerPlan

FIRST_RECORD: Mapping[str, object] = {
    "base": 0, "beta": 1.0, "budget_factor": 1.0, "budget_window": 0, "clamp": 0.05, "combine": "pooled", "layers": (),
    "reduction": "slowest", "theta": 0.05, "threshold_factor": 1.0,
}  # fmt: skip
"""Constants of the first five policies. Their states record all of these, whichever policy uses them; the digests of
those states depend on it."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option in a filter's name: in "paper:b=0.8" `key` is b. `field`: the policy's field that it sets; `read` turns
    the text into a value, raising ValueError or OverflowError; `meaning`: one line of help."""

    key: str
    field: str
    read: Callable[[str], Any]
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A filter policy with its options, checked. Subclasses are frozen dataclasses and override what they need.

    `protect_first`, `protect_last`: number of tokens at the document's ends that are never filtered. `by_default`: the
    policy was chosen as the default, not by name. Raises UsageError for an option without a meaning.
    """

    name: ClassVar[str]
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            "first", "protect_first", int, "number of tokens at the document's start that are never filtered or dropped"
        ),
        Option(
            "last", "protect_last", int, "number of tokens at the document's end that are never filtered or dropped"
        ),
    )
    recorded: ClassVar[Mapping[str, object]] = {}
    """Constants that `canonical` records beside the policy's own fields."""

    protect_first: int = 0
    protect_last: int = 0
    by_default: bool = False

    def __post_init__(self) -> None:
        not_negative(self, "protect_first", "protect_last")

    @classmethod
    def for_model(cls, constants: Constants, **options: Any) -> Self:
        """The policy with a model's own constants; `options` (by field) win."""
        return cls(**options)

    def check_model(self, *, hybrid: bool) -> None:
        """Raise UsageError for a kind of model that the policy cannot run on (hybrid: with attention layers)."""

    def record(self) -> dict[str, object]:
        """Every field that the policy depends on."""
        return {**self.recorded, **asdict(self), "mode": self.name}

    def canonical(self) -> str:
        """One line of JSON, equal exactly for policies that do the same. Part of digests: never change it."""
        return json.dumps({key: value for key, value in self.record().items() if key != "by_default"}, sort_keys=True)

    def is_active(self, training_length: int, total_length: int) -> bool:
        """Whether a document of `total_length` tokens is filtered at all."""
        return total_length > training_length

    def span(self, total_length: int) -> tuple[int, int]:
        """The tokens from the first to before the second may be filtered; the others are protected."""
        stop = max(0, total_length - self.protect_last)
        return min(self.protect_first, stop), stop

    def plan_layers(self, calibration: Calibration, total_length: int) -> tuple[LayerPlan, ...]:
        """Plan every layer. Raises CalibrationError where the calibration lacks something."""
        return tuple(self.plan_layer(calibration, layer, total_length) for layer in calibration.layers)

    def plan_layer(self, calibration: Calibration, layer: LayerCalibration, total_length: int) -> LayerPlan:
        """Plan one layer."""
        return LayerPlan.idle(layer.units)

    def identity(self, calibration: Calibration, total_length: int) -> str:
        """Anything else that the filtering depends on, for digests: neither in `canonical` nor in the layers."""
        return ""

    def notices(self, calibration: Calibration, layers: tuple[LayerPlan, ...], total_length: int) -> tuple[str, ...]:
        """Notes on this plan for the user."""
        return ()


def one_of(policy: Policy, field: str, allowed: tuple[str, ...]) -> None:
    """Raise UsageError where a field has none of the allowed values."""
    value = getattr(policy, field)
    if value not in allowed:
        raise UsageError(f"Invalid {field} {value!r}.", hint=f"One of: {', '.join(allowed)}.")


def share(policy: Policy, field: str, hint: str | None = None) -> None:
    """Raise UsageError where a field is not at least 0 and below 1."""
    if not 0 <= getattr(policy, field) < 1:
        raise UsageError(f"{field} must be at least 0 and below 1, not {getattr(policy, field)}.", hint=hint)


def positive(policy: Policy, *fields: str) -> None:
    """Raise UsageError where a field is not a positive, finite number."""
    for field in fields:
        value = getattr(policy, field)
        if not (value > 0 and math.isfinite(value)):
            raise UsageError(f"{field} must be a positive number, not {value}.")


def not_negative(policy: Policy, *fields: str) -> None:
    """Raise UsageError where a field is below 0, infinite or not a number."""
    for field in fields:
        value = getattr(policy, field)
        if not (value >= 0 and math.isfinite(value)):
            raise UsageError(f"{field} must be 0 or more, not {value}.")
