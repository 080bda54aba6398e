"""Report on a calibration with one filter: global units, budgets, saturation, kept shares by length.

It is computed from the calibration alone: a document is assumed to have the calibration windows' distribution
of step sizes, only more of them. A filter that meets its budget then keeps 1.0 of it at every length; one whose clamp
has saturated keeps more and more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from longmamba_mlx.filtering.calibration.data import Calibration, LayerCalibration
from longmamba_mlx.filtering.delta import Float64
from longmamba_mlx.filtering.layer_plan import LayerPlan
from longmamba_mlx.filtering.plan import build_plan
from longmamba_mlx.filtering.policies.base import Policy
from longmamba_mlx.filtering.thresholds import MassCurve, curve_thresholds, saturation_lengths


@dataclass(frozen=True, slots=True, eq=False)
class LayerReport:
    """One layer: how many units there are and may be filtered; over the global ones T, the step sizes' sum in a window,
    and the length from which a clamped threshold no longer rises (inf without a clamp)."""

    layer: int
    units: int
    global_units: int
    budgets: Float64
    saturation: Float64

    @property
    def global_share(self) -> float:
        return self.global_units / self.units if self.units else 0.0


@dataclass(frozen=True, slots=True)
class LengthReport:
    """One document length, over all global units: the share of tokens kept (mean), kept Delta over budget (median and
    95th percentile), and the share of units whose clamp has saturated."""

    length: int
    kept_tokens: float
    kept_mass: float
    kept_mass_high: float
    saturated: float


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """A model's calibration seen through one filter."""

    mode: str
    training_length: int
    windows: int
    layers: tuple[LayerReport, ...]
    lengths: tuple[LengthReport, ...]


def calibration_report(calibration: Calibration, policy: Policy, lengths: Sequence[int]) -> CalibrationReport:
    """The report for documents of these lengths (tokens). Raises CalibrationError where the filter needs more."""
    longest = build_plan(calibration, policy, 1 << 40)
    clamp = getattr(policy, "clamp", 0.0)
    layers = tuple(
        _layer_report(calibration, index, layer, plan, clamp)
        for index, (layer, plan) in enumerate(zip(calibration.layers, longest.layers, strict=True))
    )
    return CalibrationReport(
        policy.name,
        calibration.training_length,
        calibration.windows,
        layers,
        tuple(_length_report(calibration, policy, length, layers) for length in lengths),
    )


def _layer_report(
    calibration: Calibration, index: int, layer: LayerCalibration, plan: LayerPlan, clamp: float
) -> LayerReport:
    if not layer.units:
        return LayerReport(index, 0, 0, np.zeros(0), np.zeros(0))
    chosen = plan.is_global
    saturation = saturation_lengths(
        _curve(calibration, layer), calibration.training_length, clamp, calibration.time_step_limit
    )
    budgets = layer.budgets.astype(np.float64).mean(axis=0)
    return LayerReport(index, layer.units, int(chosen.sum()), budgets[chosen], saturation[chosen])


def _length_report(
    calibration: Calibration, policy: Policy, length: int, layers: Sequence[LayerReport]
) -> LengthReport:
    plan = build_plan(calibration, policy, length)
    tokens: list[Float64] = [np.zeros(0)]
    masses: list[Float64] = [np.zeros(0)]
    saturated: list[Float64] = [np.zeros(0)]
    for layer, known, row in zip(calibration.layers, plan.layers, layers, strict=True):
        if known.is_global.any():
            share, mass = _kept(calibration, layer, known, length)
            tokens.append(share[known.is_global])
            masses.append(mass[known.is_global])
            saturated.append((row.saturation <= length).astype(np.float64))
    share, mass, late = np.concatenate(tokens), np.concatenate(masses), np.concatenate(saturated)
    if not len(share):  # nothing is filtered: every token is kept, and so S / L of the budget
        return LengthReport(length, 1.0, *(2 * (length / calibration.training_length,)), 0.0)
    return LengthReport(
        length, float(share.mean()), float(np.median(mass)), float(np.quantile(mass, 0.95)), float(late.mean())
    )


def _kept(calibration: Calibration, layer: LayerCalibration, plan: LayerPlan, length: int) -> tuple[Float64, Float64]:
    """Per unit the share of tokens kept and the kept sum of Delta over the budget, in a document of this length."""
    curve = _curve(calibration, layer)
    stretch = length / calibration.training_length
    thresholds = plan.thresholds
    if plan.find is not None:  # the budget met on the document itself: the same threshold as without a clamp
        thresholds = curve_thresholds(curve, min(1.0, 1 / stretch), 0.0, calibration.time_step_limit)
    if thresholds is None:
        thresholds = np.full(layer.units, -np.inf, np.float32)
    share, mass = np.ones(layer.units), np.full(layer.units, stretch)
    whole = curve.mass[-1].astype(np.float64)
    for unit in np.flatnonzero(thresholds > -np.inf):
        rank = _rank_above(curve, int(unit), float(thresholds[unit]))
        share[unit] = rank / curve.tokens
        inside = np.interp(rank, np.concatenate([[0], curve.ranks]), np.concatenate([[0.0], curve.mass[:, unit]]))
        mass[unit] = stretch * inside / whole[unit] if whole[unit] > 0 else math.nan
    return share, mass


def _rank_above(curve: MassCurve, unit: int, threshold: float) -> float:
    """How many of the pooled tokens lie above a raw threshold, between the knots' ranks."""
    column = curve.raw[:, unit].astype(np.float64)
    place = int(np.searchsorted(-column, -threshold))  # knots strictly above
    if place == 0:
        return 0.0
    if place == len(column):
        return float(curve.ranks[-1])
    low, high = float(curve.ranks[place - 1]), float(curve.ranks[place])
    gap = column[place - 1] - column[place]
    return low + (high - low) * (column[place - 1] - threshold) / gap if gap > 0 else low


def _curve(calibration: Calibration, layer: LayerCalibration) -> MassCurve:
    return MassCurve(calibration.ranks, layer.knot_raw, layer.knot_mass)
