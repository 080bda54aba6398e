"""DeciMamba (arXiv 2406.14528): in some layers all but the tokens with the largest step sizes are dropped for good.

A dropped token has passed the layer's convolution but neither its scan nor anything above: from there on the sequence
is shorter. In the s-th of these layers the `base` * beta^s tokens with the largest Euclidean norm of Delta over all
units stay (at least `LEAST`). The method is the predecessor that LongMamba is compared with; questions and answers
follow undecimated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import UsageError
from longmamba_mlx.filtering.calibration.data import Calibration
from longmamba_mlx.filtering.delta import DtRange, Float32, delta_of
from longmamba_mlx.filtering.layer_plan import LayerPlan
from longmamba_mlx.filtering.policies.base import FIRST_RECORD, Option, Policy, not_negative, positive

LEAST = 20
"""Tokens that always stay, where there are as many (the published minimum)."""

_PUBLISHED_MAMBA1 = {24: (12,), 48: (12,), 64: (22,)}
_PUBLISHED_MAMBA2 = {48: (6, 20, 22, 32)}
_PIECE = 1 << 20  # step sizes turned to Delta at once


def _layers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split("+"))


@dataclass(frozen=True, kw_only=True)
class DeciMamba(Policy):
    """`layers`: those that drop tokens, () for the published ones; `base`: how many tokens stay in the first of them, 0
    for two training windows; `beta`: what that number is multiplied with from each to the next."""

    name = "decimamba"
    options: ClassVar[tuple[Option, ...]] = (
        *Policy.options,
        Option("layers", "layers", _layers, "the layers that drop tokens, as in 12+20 (default: the published ones)"),
        Option(
            "base",
            "base",
            int,
            "number of tokens that stay in the first of these layers (default: two training windows)",
        ),
        Option("beta", "beta", float, "in the s-th of these layers base * beta^s tokens stay"),
    )
    recorded = FIRST_RECORD

    layers: tuple[int, ...] = ()
    base: int = 0
    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "beta")
        not_negative(self, "base")

    def check_model(self, *, hybrid: bool) -> None:
        if hybrid:  # attention layers above would miss the dropped tokens, and count positions without them
            raise UsageError("decimamba is made for pure Mamba models.", hint="Use longmamba, or another filter.")

    def is_active(self, training_length: int, total_length: int) -> bool:
        return True  # `base` alone decides

    def plan_layers(self, calibration: Calibration, total_length: int) -> tuple[LayerPlan, ...]:
        chosen = self.decimation(calibration)
        idle = tuple(LayerPlan.idle(layer.units) for layer in calibration.layers)
        if total_length <= min(chosen.counts):  # the first of the layers would keep everything
            return idle
        drop = partial(_stay, dt_range=calibration.time_step_limit, first=self.protect_first, last=self.protect_last)
        counts = [chosen.count(index) for index in range(len(idle))]
        return tuple(
            layer if count is None else replace(layer, drop=partial(drop, count=count))
            for layer, count in zip(idle, counts, strict=True)
        )

    def identity(self, calibration: Calibration, total_length: int) -> str:
        chosen = self.decimation(calibration)
        return f"{chosen.layers} {chosen.counts}"

    def decimation(self, calibration: Calibration) -> Decimation:
        """The layers of a model that drop tokens. Raises UsageError for one that has no scan."""
        scans = [index for index, layer in enumerate(calibration.layers) if layer.units]
        is_mamba1 = any(layer.rates.shape[1] > 1 for layer in calibration.layers)
        layers = self.layers or default_layers(len(calibration.layers), is_mamba1, scans)
        return decimation(layers, self.base or 2 * calibration.training_length, self.beta, scans)


@dataclass(frozen=True, slots=True)
class Decimation:
    """Which layers drop tokens, ascending, and how many stay in each."""

    layers: tuple[int, ...]
    counts: tuple[int, ...]

    def count(self, layer: int) -> int | None:
        """How many tokens stay in a layer; None where none are dropped."""
        return self.counts[self.layers.index(layer)] if layer in self.layers else None


def default_layers(n_layer: int, is_mamba1: bool, scans: Sequence[int]) -> tuple[int, ...]:
    """The published layers for a model of this depth: 12 of 24 or 48, 22 of 64 (Mamba-1), 6, 20, 22, 32 of 48
    (Mamba-2). Elsewhere one layer a third of the way up, but never the first: its step sizes know single tokens
    only. `scans`: the layers that have a scan, ascending; a layer without one passes it on to the next that has."""
    published = (_PUBLISHED_MAMBA1 if is_mamba1 else _PUBLISHED_MAMBA2).get(n_layer)
    wanted = published or (max(1, round(n_layer / 3)),)
    return tuple(dict.fromkeys(min((scan for scan in scans if scan >= layer), default=scans[-1]) for layer in wanted))


def decimation(layers: tuple[int, ...], base: int, beta: float, scans: Sequence[int]) -> Decimation:
    """Checked settings with the counts worked out. Raises UsageError for layers that are not among `scans`."""
    wrong = [layer for layer in layers if layer not in scans]
    if wrong:
        raise UsageError(f"The model has no layer {wrong[0]} with a scan.", hint=f"It has {scans[0]} to {scans[-1]}.")
    layers = tuple(sorted(set(layers)))
    return Decimation(layers, tuple(max(LEAST, int(base * beta**place)) for place in range(len(layers))))


def kept_positions(raw: Float32, count: int, dt_range: DtRange, *, first: int = 0, last: int = 0) -> NDArray[np.intp]:
    """The tokens that stay, ascending: the `count` largest norms of Delta; of equal ones the earlier.

    raw (S, units) float32 is dt + dt_bias. The first `first` and the last `last` tokens stay in addition.
    """
    tokens = len(raw)
    open_from, open_to = min(first, tokens), max(first, tokens - last)
    norms = _norms(raw[open_from:open_to], dt_range)
    order = np.argsort(-norms, kind="stable")[:count] + open_from
    return np.sort(np.concatenate([np.arange(open_from), order, np.arange(open_to, tokens)]))


def _stay(raw: Float32, *, count: int, dt_range: DtRange, first: int, last: int) -> NDArray[np.intp] | None:
    """As `kept_positions`; None where all stay."""
    return None if count >= len(raw) else kept_positions(raw, count, dt_range, first=first, last=last)


def _norms(raw: Float32, dt_range: DtRange) -> NDArray[np.float64]:
    rows = max(1, _PIECE // max(1, raw.shape[1]))
    norms = np.empty(len(raw))
    for start in range(0, len(raw), rows):
        norms[start : start + rows] = np.linalg.norm(delta_of(raw[start : start + rows], dt_range), axis=1)
    return norms
