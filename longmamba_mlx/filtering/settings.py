"""What a filter is asked to do: the mode, its constants, and where published constants come from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from longmamba_mlx.errors import UsageError
from longmamba_mlx.filtering.names import parse_filter

MODES = ("off", "longmamba", "paper", "curve", "document", "decimamba")
REDUCTIONS = ("step_mean", "slowest", "mean_prod")
COMBINATIONS = ("avg", "max", "pooled")

DEFAULT_MODE = "paper"
"""The mode that `longmamba` names."""


@dataclass(frozen=True, slots=True)
class FilterSettings:
    """How global units are found and how strictly they are filtered.

    `mode`: off; paper (the authors' table, to the letter); curve (the same rule in closed form, continuous in
    the length); document (the budget met on the document's own step sizes); decimamba (tokens dropped for good in
    some layers); longmamba (the default of these).
    `theta`: a unit is global when its decay over one training window exceeds it; in [0, 1), 0: all are.
    `clamp`: share of the largest step sizes that are cut to the value at that share before anything is
    summed; 0: none. The document mode has no use for it.
    `reduction`: how a Mamba-1 unit's modes become one decay (step_mean always in paper mode).
    `budget_factor`: multiplies the budget T (curve, document); `budget_window`: the tokens whose step sizes the budget
    is made for, 0 for a training window (a longer window reaches further back for less recency).
    `threshold_factor`: multiplies the threshold on Delta, the authors' b (paper, curve).
    `protect_first`, `protect_last`: so many tokens at the document's ends are never filtered.
    `layers`, `base`, `beta`: of decimamba; () and 0 for the published ones (base: two training windows).
    `combine`: how calibration windows are combined; `paper` reads "pooled" as the release's "avg", `curve` is
    always pooled. Raises UsageError for anything without a meaning.
    """

    mode: str = "longmamba"
    theta: float = 5e-2
    clamp: float = 0.05
    reduction: str = "slowest"
    budget_factor: float = 1.0
    combine: str = "pooled"
    budget_window: int = 0
    threshold_factor: float = 1.0
    protect_first: int = 0
    protect_last: int = 0
    layers: tuple[int, ...] = ()
    base: int = 0
    beta: float = 1.0

    def __post_init__(self) -> None:
        _one_of("filter", self.mode, MODES)
        _one_of("reduction", self.reduction, REDUCTIONS)
        _one_of("combine", self.combine, COMBINATIONS)
        self._check_numbers()
        self._check_combinations()

    def _check_numbers(self) -> None:
        if not 0 <= self.theta < 1:
            raise UsageError(f"theta must be at least 0 and below 1, not {self.theta}")
        if not 0 <= self.clamp < 1:
            raise UsageError(f"clamp must be at least 0 and below 1, not {self.clamp}", hint="0.05 means 5 %.")
        for name in ("budget_factor", "threshold_factor", "beta"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise UsageError(f"{name} must be a positive number, not {value}")
        for name in ("budget_window", "protect_first", "protect_last", "base"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must be 0 or more, not {getattr(self, name)}")

    def _check_combinations(self) -> None:
        mode = self.resolved_mode
        if mode == "paper" and (self.budget_factor, self.budget_window) != (1.0, 0):
            raise UsageError("a budget has no meaning in paper mode", hint="Use the curve or document mode.")
        if mode == "document" and self.threshold_factor != 1.0:
            raise UsageError("a threshold factor has no meaning in document mode", hint="Use the budget factor r.")
        if self.resolved_mode == "curve" and self.combine != "pooled":
            raise UsageError(f"the curve mode pools its windows and cannot combine them by {self.combine}")

    @property
    def resolved_mode(self) -> str:
        """The mode itself, `longmamba` replaced by the default it names."""
        return DEFAULT_MODE if self.mode == "longmamba" else self.mode

    @property
    def log_theta(self) -> float:
        """ln theta, -inf for 0: 1e-30 and far less are compared in logs, where nothing underflows."""
        return math.log(self.theta) if self.theta > 0 else -math.inf

    def effective(self) -> FilterSettings:
        """The same filter with every name resolved and every unused constant at its default, for digests."""
        mode = self.resolved_mode
        plain = FilterSettings(mode=mode, protect_first=self.protect_first, protect_last=self.protect_last)
        if mode == "off":
            return FilterSettings(mode="off")
        if mode == "decimamba":
            return replace(plain, layers=self.layers, base=self.base, beta=self.beta)
        paper = mode == "paper"
        return replace(
            plain,
            theta=self.theta,
            clamp=0.0 if mode == "document" else self.clamp,
            reduction="step_mean" if paper else self.reduction,
            budget_factor=self.budget_factor,
            budget_window=self.budget_window,
            threshold_factor=self.threshold_factor,
            combine="avg" if paper and self.combine == "pooled" else self.combine,
        )

    def canonical(self) -> str:
        """One line of text, equal exactly for filters that do the same."""
        return json.dumps(asdict(self.effective()), sort_keys=True)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"unknown {name} {value!r}", hint=f"One of: {', '.join(allowed)}.")


@dataclass(frozen=True, slots=True)
class Constants:
    """A family's published constants. `trained_length` is the number in the checkpoint's description, while
    `training_length` is the window the authors calibrated with (2000, not 2048)."""

    theta: float
    slowest_theta: float
    clamp: float
    training_length: int
    trained_length: int
    source: str


PUBLISHED: Mapping[str, Constants] = {
    "mamba": Constants(
        # Of step_mean, the only measure for which 1e-30 means much. With A_n = -n and 16 modes that behaves
        # like exp(-8.5 sum Delta): 1e-30 (69.1 nats) admits units with sum Delta < 8.1, whose slowest mode,
        # |A| = 1, decays by exp(-8.1).
        theta=1e-30,
        slowest_theta=3e-4,
        clamp=0.20,
        training_length=2000,
        trained_length=2048,
        source="Mamba-1.4B in the LongMamba paper; length from the research code; slowest_theta derived",
    ),
    "mamba2": Constants(
        theta=5e-2,
        slowest_theta=5e-2,
        clamp=0.05,
        training_length=2000,
        trained_length=2048,
        source="Mamba2-1.3B in the LongMamba paper and the released code's defaults",
    ),
    "zamba2": Constants(
        theta=1e-5,
        slowest_theta=1e-5,
        clamp=0.05,
        training_length=4000,
        trained_length=4096,
        source="Zamba2-1.2B in the LongMamba paper; length from the research code",
    ),
}


class ModelFacts(Protocol):
    """What a model's configuration tells about the constants to use."""

    @property
    def model_type(self) -> str: ...
    @property
    def is_mamba1(self) -> bool: ...
    @property
    def training_length(self) -> int: ...


def constants_for(config: ModelFacts, block: Mapping[str, object] | None = None) -> Constants:
    """The constants of a model.

    `block` is the "longmamba" part of a model folder's config.json (theta, clamp, training_length, all
    optional); it wins. Otherwise the published ones by model type. A type nobody published for (falcon_mamba
    among them: the paper uses it without giving theta or clamp) takes those of Mamba-1 or Mamba-2, whichever
    its units are, and its own training length; so does a published type trained at another length. Raises
    UsageError for impossible values.
    """
    block = block or {}
    base = PUBLISHED.get(config.model_type)
    nearest = base or PUBLISHED["mamba" if config.is_mamba1 else "mamba2"]
    as_published = base is not None and config.training_length in (base.trained_length, base.training_length)
    length = nearest.training_length if as_published else config.training_length
    own_theta = _number(block, "theta", math.nan)
    given = not math.isnan(own_theta)
    return Constants(
        theta=own_theta if given else nearest.theta,
        slowest_theta=own_theta if given else nearest.slowest_theta,
        clamp=_number(block, "clamp", nearest.clamp),
        training_length=int(_number(block, "training_length", length)),
        trained_length=config.training_length,
        source="the model's own config.json" if block else nearest.source,
    )


def settings_for(
    config: ModelFacts,
    filter: str = "longmamba",
    block: Mapping[str, object] | None = None,
    *,
    reduction: str = "slowest",
) -> FilterSettings:
    """The settings of a filter name ("paper", "document:last=64") with the model's own constants where the name gives
    no others; theta is the one that fits the reduction. Raises UsageError for a name without a meaning."""
    mode, changes = parse_filter(filter)
    constants = constants_for(config, block)
    reduction = changes.get("reduction", reduction)
    by_steps = FilterSettings(mode).resolved_mode == "paper" or reduction == "step_mean"
    settings = FilterSettings(
        mode=mode,
        theta=constants.theta if by_steps else constants.slowest_theta,
        clamp=constants.clamp,
        reduction="step_mean" if by_steps else reduction,
        combine="avg" if mode == "paper" else "pooled",
    )
    return replace(settings, **changes)


def _number(block: Mapping[str, object], key: str, default: float) -> float:
    value = block.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f'"{key}" in the longmamba settings must be a number, not {value!r}')
    return value
