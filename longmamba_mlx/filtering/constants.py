"""Constants of the method by model family, and where each comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from longmamba_mlx.errors import UsageError


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
    """The part of a model's configuration that the constants depend on."""

    @property
    def model_type(self) -> str: ...
    @property
    def is_mamba1(self) -> bool: ...
    @property
    def training_length(self) -> int: ...


def constants_for(config: ModelFacts, block: Mapping[str, object] | None = None) -> Constants:
    """The constants of a model.

    `block` is the "longmamba" part of a model folder's config.json (theta, clamp, training_length, all
    optional); it wins. Otherwise the published ones by model type. A type without published constants
    (falcon_mamba among them: the paper uses it without giving theta or clamp) takes those of Mamba-1
    or Mamba-2, whichever its units are, and its own training length; so does a published type trained at another
    length. Raises UsageError for impossible values.
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


def _number(block: Mapping[str, object], key: str, default: float) -> float:
    value = block.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f'"{key}" in the longmamba settings must be a number, not {value!r}.')
    return value
