"""FilterPlan: which thresholds every layer uses for one document of a known length."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import CalibrationError
from longmamba_mlx.longmamba.calibration import Calibration, LayerCalibration
from longmamba_mlx.longmamba.decay import log_decay
from longmamba_mlx.longmamba.delta import Float, Float32, Limit
from longmamba_mlx.longmamba.settings import FilterSettings
from longmamba_mlx.longmamba.table import nearest_length, paper_active, paper_lengths
from longmamba_mlx.longmamba.thresholds import (
    MassCurve,
    clamped_window,
    curve_thresholds,
    document_thresholds,
)


@dataclass(frozen=True, slots=True, eq=False)
class LayerPlan:
    """One layer of a plan.

    is_global (units,) bool: the units that may be filtered; thresholds (units,) float32 raw, None for no
    filter; budgets (units,) in Delta, set while the thresholds wait for the document.
    """

    is_global: NDArray[np.bool_]
    thresholds: Float32 | None = None
    budgets: Float32 | None = None

    @property
    def waits(self) -> bool:
        """Whether the thresholds depend on the document's own step sizes."""
        return self.budgets is not None and bool(self.is_global.any())


@dataclass(frozen=True, slots=True, eq=False)
class FilterPlan:
    """Thresholds for a reading of `total_length` tokens, however it is chunked; notices are for a person."""

    settings: FilterSettings
    total_length: int
    training_length: int
    layers: tuple[LayerPlan, ...]
    time_step_limit: Limit = (0.0, float("inf"))
    notices: tuple[str, ...] = ()

    @property
    def needs_document(self) -> bool:
        """Whether any layer must see the document's step sizes (`resolve`) before it can be filtered."""
        return any(layer.waits for layer in self.layers)

    @property
    def is_off(self) -> bool:
        """Whether nothing is filtered in any layer."""
        return not self.needs_document and all(layer.thresholds is None for layer in self.layers)

    @property
    def global_shares(self) -> tuple[float, ...]:
        """Per layer the share of units that may be filtered."""
        return tuple(float(layer.is_global.mean()) if layer.is_global.size else 0.0 for layer in self.layers)

    def waits(self, layer: int) -> bool:
        """Whether this layer needs `resolve`; False also where it has nothing to filter."""
        return self.layers[layer].waits

    def thresholds(self, layer: int) -> Float32 | None:
        """Raw thresholds (units,) float32 of a layer, -inf for units that are not filtered; None: nothing
        filtered.

        Raises ValueError where they depend on the document and `resolve` has to be asked instead.
        """
        plan = self.layers[layer]
        if plan.waits:
            raise ValueError(f"layer {layer} needs the document's own step sizes: call resolve")
        return plan.thresholds

    def resolve(self, layer: int, raw: Float32) -> Float32 | None:
        """Thresholds of a layer for this document: raw (S, units) float32 is the document's dt + dt_bias.

        The kept step sizes of each global unit sum to its budget, to within one token. With fewer rows than
        the document has tokens (a sample of it) the budget is scaled by the share that is there. Layers that
        do not wait return what `thresholds` does. Raises NumericError for step sizes that are not finite.
        """
        plan = self.layers[layer]
        if not plan.waits or plan.budgets is None:
            return plan.thresholds
        raw = np.asarray(raw, np.float32)
        if raw.ndim != 2 or raw.shape[1] != plan.is_global.size or not len(raw):
            raise ValueError(f"raw must be (tokens, {plan.is_global.size}), got {raw.shape}")
        units = np.flatnonzero(plan.is_global)
        budgets = plan.budgets[units].astype(np.float64) * (len(raw) / self.total_length)
        thresholds = np.full(plan.is_global.size, -np.inf, np.float32)
        thresholds[units] = document_thresholds(raw, units, budgets, self.time_step_limit)
        return _or_none(thresholds)

    def resolved(self, thresholds: Sequence[Float32 | None]) -> FilterPlan:
        """The same plan with its thresholds fixed, one entry per layer as `resolve` returned them."""
        if len(thresholds) != len(self.layers):
            raise ValueError(f"{len(self.layers)} layers, but {len(thresholds)} thresholds")
        for plan, values in zip(self.layers, thresholds, strict=True):
            if values is not None and values.shape != plan.is_global.shape:
                raise ValueError(f"thresholds of shape {values.shape} for {plan.is_global.size} units")
        layers = tuple(
            LayerPlan(plan.is_global, None if values is None else np.asarray(values, np.float32))
            for plan, values in zip(self.layers, thresholds, strict=True)
        )
        return replace(self, layers=layers)

    def digest(self) -> str:
        """sha256 (hex) of all that decides the filtering; plans that filter alike have the same."""
        if self.is_off:
            return hashlib.sha256(b"off").hexdigest()
        hasher = hashlib.sha256(self.settings.canonical().encode())
        hasher.update(f"{self.total_length} {self.training_length} {self.time_step_limit}".encode())
        for layer in self.layers:
            hasher.update(b"|" + np.packbits(layer.is_global).tobytes())
            for array in (layer.thresholds, layer.budgets):
                hasher.update(b"-" if array is None else array.astype("<f4").tobytes())
        return hasher.hexdigest()


def build_plan(calibration: Calibration, settings: FilterSettings, total_length: int) -> FilterPlan:
    """The plan for reading `total_length` tokens in all.

    Nothing is filtered up to the training length (paper mode: below the released code's own lower bound).
    Raises CalibrationError where the settings need what the calibration does not have (paper mode, a clamp
    without table).
    """
    settings = settings.effective()
    mode = settings.mode
    off = mode == "off" or total_length <= calibration.training_length
    if mode == "paper" and not paper_active(calibration.training_length, total_length):
        off = True
    if off:
        layers = tuple(LayerPlan(np.zeros(layer.units, np.bool_)) for layer in calibration.layers)
    else:
        build = {"paper": _paper_layer, "curve": _curve_layer, "document": _document_layer}[mode]
        layers = tuple(build(calibration, layer, settings, total_length) for layer in calibration.layers)
    return FilterPlan(
        settings=settings,
        total_length=total_length,
        training_length=calibration.training_length,
        layers=layers,
        time_step_limit=calibration.time_step_limit,
        notices=() if off else _notices(calibration, mode, layers, total_length),
    )


def _paper_layer(
    calibration: Calibration, layer: LayerCalibration, settings: FilterSettings, total_length: int
) -> LayerPlan:
    table = layer.table(settings.clamp)
    row = nearest_length(paper_lengths(calibration.training_length), total_length)
    logs = log_decay(table.budgets, layer.rates, table.step_mean, "step_mean", settings.combine)
    is_global = logs > settings.log_theta
    values = table.maximum[row] if settings.combine == "max" else table.mean[row]
    return LayerPlan(is_global, _or_none(np.where(is_global, values, -np.inf)))


def _curve_layer(
    calibration: Calibration, layer: LayerCalibration, settings: FilterSettings, total_length: int
) -> LayerPlan:
    curve = MassCurve(calibration.ranks, layer.knot_raw, layer.knot_mass)
    budgets, step_mean = layer.budgets, layer.step_mean
    if settings.clamp > 0:
        pooled, steps = clamped_window(curve, settings.clamp, layer.rates, calibration.time_step_limit)
        budgets = (pooled / calibration.windows)[None].astype(np.float32)
        step_mean = None if steps is None else (steps / calibration.windows)[None].astype(np.float32)
    logs = log_decay(budgets, layer.rates, step_mean, settings.reduction, "pooled")
    is_global = logs > settings.log_theta
    fraction = calibration.training_length * settings.budget_factor / total_length
    values = curve_thresholds(curve, fraction, settings.clamp, calibration.time_step_limit)
    return LayerPlan(is_global, _or_none(np.where(is_global, values, -np.inf)))


def _document_layer(
    calibration: Calibration, layer: LayerCalibration, settings: FilterSettings, total_length: int
) -> LayerPlan:
    logs = log_decay(layer.budgets, layer.rates, layer.step_mean, settings.reduction, settings.combine)
    wide = layer.budgets.astype(np.float64)
    budgets = wide.max(axis=0) if settings.combine == "max" else wide.mean(axis=0)
    return LayerPlan(logs > settings.log_theta, None, (budgets * settings.budget_factor).astype(np.float32))


def _or_none(thresholds: Float) -> Float32 | None:
    values = np.asarray(thresholds, np.float32)
    return values if bool((values > -np.inf).any()) else None


def _notices(calibration: Calibration, mode: str, layers: tuple[LayerPlan, ...], total_length: int) -> tuple[str, ...]:
    if not any(layer.is_global.any() for layer in layers):
        return ("No part of this model remembers beyond its training length at this theta: nothing is filtered.",)
    longest = paper_lengths(calibration.training_length)[-1]
    if mode == "paper" and total_length > longest:
        return (
            f"The published table ends at {longest:,} tokens; this document has {total_length:,} "
            "and is filtered less than it should be. The filters curve and document have no such end.",
        )
    return ()


def require_layers(calibration: Calibration, n_layer: int, units: int) -> None:
    """Raises CalibrationError where a calibration does not fit a model's number of layers or units."""
    if len(calibration.layers) != n_layer or any(layer.units != units for layer in calibration.layers):
        raise CalibrationError("this calibration does not fit the model's layers", hint="Calibrate this model again.")
