"""FilterPlan: which thresholds every layer uses for one document of a known length."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import CalibrationError
from longmamba_mlx.filtering.calibration.data import Calibration, LayerCalibration
from longmamba_mlx.filtering.decay import log_decay
from longmamba_mlx.filtering.delta import Float, Float32, Limit, delta_of, raw_of
from longmamba_mlx.filtering.policies.decimamba import Decimation, decimation, default_layers, kept_positions
from longmamba_mlx.filtering.policies.table import nearest_length, paper_active, paper_lengths
from longmamba_mlx.filtering.settings import FilterSettings
from longmamba_mlx.filtering.thresholds import (
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
    """Thresholds for a reading of `total_length` tokens, however it is chunked; notices are for a person.

    `decimation`: the layers in which tokens are dropped for good (`decimamba` mode), whose plans have no thresholds.
    """

    settings: FilterSettings
    total_length: int
    training_length: int
    layers: tuple[LayerPlan, ...]
    time_step_limit: Limit = (0.0, float("inf"))
    notices: tuple[str, ...] = ()
    decimation: Decimation | None = None

    @property
    def needs_document(self) -> bool:
        """Whether any layer must see the document's step sizes (`resolve`, `kept_positions`) before it can be run."""
        return self.decimation is not None or any(layer.waits for layer in self.layers)

    @property
    def filtered_span(self) -> tuple[int, int]:
        """The tokens from the first to before the second may be filtered; the others are protected."""
        stop = max(0, self.total_length - self.settings.protect_last)
        return min(self.settings.protect_first, stop), stop

    def filters(self, start: int) -> bool:
        """Whether the tokens from `start` on, up to the next edge, may be filtered."""
        first, stop = self.filtered_span
        return first <= start < stop

    def next_edge(self, start: int) -> int:
        """The first token after `start` where protection begins or ends: no chunk may reach across it."""
        return next((edge for edge in self.filtered_span if edge > start), max(self.total_length, start + 1))

    def drops(self, layer: int) -> bool:
        """Whether a layer drops tokens for good (`kept_positions`)."""
        return self.decimation is not None and self.decimation.count(layer) is not None

    def kept_positions(self, layer: int, raw: Float32) -> NDArray[np.intp] | None:
        """The tokens of raw (S', units) float32, dt + dt_bias, that a layer does not drop; None where none is dropped.

        S' counts the tokens that the layers below have left.
        """
        count = None if self.decimation is None else self.decimation.count(layer)
        if count is None or count >= len(raw):
            return None
        settings = self.settings
        return kept_positions(
            raw, count, self.time_step_limit, first=settings.protect_first, last=settings.protect_last
        )

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
        if len(raw) == self.total_length:
            first, stop = self.filtered_span
            if first == stop:
                return None
            raw = raw[first:stop]
        units = np.flatnonzero(plan.is_global)
        sampled = min(1.0, len(raw) / max(1, self.filtered_span[1] - self.filtered_span[0]))
        budgets = plan.budgets[units].astype(np.float64) * sampled
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
        if self.decimation is not None:
            hasher.update(f"{self.decimation.layers} {self.decimation.counts}".encode())
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
    asked, settings = settings.mode, settings.effective()
    mode = settings.mode
    if mode == "decimamba":
        return _decimating_plan(calibration, settings, total_length)
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
        notices=() if off else _notices(calibration, asked, layers, total_length),
    )


def _decimating_plan(calibration: Calibration, settings: FilterSettings, total_length: int) -> FilterPlan:
    """A plan without thresholds; nothing is dropped where the first decimating layer would keep everything."""
    mamba1 = any(layer.rates.shape[1] > 1 for layer in calibration.layers)
    scans = [index for index, layer in enumerate(calibration.layers) if layer.units]
    chosen = decimation(
        settings.layers or default_layers(len(calibration.layers), mamba1, scans),
        settings.base or 2 * calibration.training_length,
        settings.beta,
        scans,
    )
    return FilterPlan(
        settings=settings,
        total_length=total_length,
        training_length=calibration.training_length,
        layers=tuple(LayerPlan(np.zeros(layer.units, np.bool_)) for layer in calibration.layers),
        time_step_limit=calibration.time_step_limit,
        decimation=chosen if total_length > min(chosen.counts) else None,
    )


def _paper_layer(
    calibration: Calibration, layer: LayerCalibration, settings: FilterSettings, total_length: int
) -> LayerPlan:
    table = layer.table(settings.clamp)
    row = nearest_length(paper_lengths(calibration.training_length), total_length)
    logs = log_decay(table.budgets, layer.rates, table.step_mean, "step_mean", settings.combine)
    is_global = logs > settings.log_theta
    values = table.maximum[row] if settings.combine == "max" else table.mean[row]
    values = _scaled(values, settings.threshold_factor, calibration.time_step_limit)
    return LayerPlan(is_global, _or_none(np.where(is_global, values, -np.inf)))


def _scaled(thresholds: Float32, factor: float, limit: Limit) -> Float32:
    """Raw thresholds for `factor` times their Delta (the authors' b)."""
    return thresholds if factor == 1.0 else raw_of(factor * delta_of(thresholds), limit)


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
    fraction = calibration.training_length * _budget_factor(calibration, settings) / total_length
    values = curve_thresholds(curve, fraction, settings.clamp, calibration.time_step_limit)
    values = _scaled(values, settings.threshold_factor, calibration.time_step_limit)
    return LayerPlan(is_global, _or_none(np.where(is_global, values, -np.inf)))


def _document_layer(
    calibration: Calibration, layer: LayerCalibration, settings: FilterSettings, total_length: int
) -> LayerPlan:
    logs = log_decay(layer.budgets, layer.rates, layer.step_mean, settings.reduction, settings.combine)
    wide = layer.budgets.astype(np.float64)
    budgets = wide.max(axis=0) if settings.combine == "max" else wide.mean(axis=0)
    budgets *= _budget_factor(calibration, settings)
    return LayerPlan(logs > settings.log_theta, None, budgets.astype(np.float32))


def _budget_factor(calibration: Calibration, settings: FilterSettings) -> float:
    window = settings.budget_window or calibration.training_length
    return settings.budget_factor * window / calibration.training_length


def _or_none(thresholds: Float) -> Float32 | None:
    values = np.asarray(thresholds, np.float32)
    return values if bool((values > -np.inf).any()) else None


def _notices(calibration: Calibration, asked: str, layers: tuple[LayerPlan, ...], total_length: int) -> tuple[str, ...]:
    """What a person should hear of a plan. Who takes the default filter need not hear of its table."""
    if not any(layer.is_global.any() for layer in layers):
        return ("No part of this model remembers beyond its training length at this theta: nothing is filtered.",)
    longest = paper_lengths(calibration.training_length)[-1]
    if asked == "paper" and total_length > longest:
        return (
            f"The authors' table ends at {longest:,} tokens: "
            f"its last thresholds are used for the {total_length:,} of this document.",
        )
    return ()


def require_layers(calibration: Calibration, n_layer: int, units: int | Sequence[int]) -> None:
    """Raises CalibrationError where a calibration does not fit a model's number of layers or units.

    `units`: of every layer, or one number for each layer, 0 for those without a scan.
    """
    wanted = [units] * n_layer if isinstance(units, int) else list(units)
    if [layer.units for layer in calibration.layers] != wanted or len(wanted) != n_layer:
        raise CalibrationError("this calibration does not fit the model's layers", hint="Calibrate this model again.")
