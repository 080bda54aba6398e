"""FilterPlan: the filter of every layer for one document of a known length."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import CalibrationError
from longmamba_mlx.filtering.calibration.data import Calibration
from longmamba_mlx.filtering.delta import DtRange, Float32
from longmamba_mlx.filtering.layer_plan import LayerPlan
from longmamba_mlx.filtering.policies.base import Policy


@dataclass(frozen=True, slots=True, eq=False)
class FilterPlan:
    """A policy applied to a document of `total_length` tokens, however it is chunked; `notices` are for the user."""

    policy: Policy
    total_length: int
    training_length: int
    layers: tuple[LayerPlan, ...]
    time_step_limit: DtRange = (0.0, float("inf"))
    notices: tuple[str, ...] = ()
    identity: str = ""

    @property
    def needs_document(self) -> bool:
        """Whether any layer must see the document's step sizes (`resolve`, `kept_positions`) before it can be run."""
        return any(self.waits(index) or self.drops(index) for index in range(len(self.layers)))

    @property
    def drops_tokens(self) -> bool:
        """Whether any layer drops tokens for good."""
        return any(self.drops(index) for index in range(len(self.layers)))

    @property
    def has_thresholds(self) -> bool:
        """Whether any layer's thresholds are known and filter something."""
        return any(layer.thresholds is not None for layer in self.layers)

    @property
    def is_scaled(self) -> bool:
        """Whether any layer's A or dt is scaled while the filtered tokens are read."""
        return any(layer.factors is not None for layer in self.layers)

    @property
    def filtered_span(self) -> tuple[int, int]:
        """The tokens from the first to before the second may be filtered; the others are protected."""
        return self.policy.span(self.total_length)

    def filters(self, start: int) -> bool:
        """Whether the tokens from `start` on, up to the next edge, may be filtered."""
        first, stop = self.filtered_span
        return first <= start < stop

    def next_edge(self, start: int) -> int:
        """The first token after `start` where protection begins or ends: no chunk may reach across it."""
        return next((edge for edge in self.filtered_span if edge > start), max(self.total_length, start + 1))

    @property
    def is_off(self) -> bool:
        """Whether nothing is filtered in any layer."""
        return all(layer.is_idle for layer in self.layers)

    @property
    def global_shares(self) -> tuple[float, ...]:
        """Per layer the share of units that may be filtered."""
        return tuple(float(layer.is_global.mean()) if layer.is_global.size else 0.0 for layer in self.layers)

    def waits(self, layer: int) -> bool:
        """Whether this layer's thresholds need `resolve`; False also where it has nothing to filter."""
        return self.layers[layer].find is not None

    def drops(self, layer: int) -> bool:
        """Whether this layer drops tokens for good (`kept_positions`)."""
        return self.layers[layer].drop is not None

    def thresholds(self, layer: int) -> Float32 | None:
        """Raw thresholds (units,) float32 of a layer, -inf for units that are not filtered; None: nothing
        filtered.

        Raises ValueError where they depend on the document and `resolve` has to be asked instead.
        """
        if self.waits(layer):
            raise ValueError(f"layer {layer} needs the document's own step sizes: call resolve")
        return self.layers[layer].thresholds

    def all_thresholds(self) -> list[Float32 | None]:
        """`thresholds` of every layer. Raises as it does."""
        return [self.thresholds(layer) for layer in range(len(self.layers))]

    def resolve(self, layer: int, raw: Float32) -> Float32 | None:
        """Thresholds of a layer for this document: raw (S, units) float32 is the document's dt + dt_bias.

        Rows may be a sample of the document's tokens. Layers that do not wait return what `thresholds` does. Raises
        NumericError for step sizes that are not finite.
        """
        plan = self.layers[layer]
        if plan.find is None:
            return plan.thresholds
        raw = np.asarray(raw, np.float32)
        if raw.ndim != 2 or raw.shape[1] != plan.is_global.size or not len(raw):
            raise ValueError(f"raw must be (tokens, {plan.is_global.size}), got {raw.shape}")
        return plan.find(raw)

    def kept_positions(self, layer: int, raw: Float32) -> NDArray[np.intp] | None:
        """The tokens of raw (S', units) float32, dt + dt_bias, that a layer does not drop; None where none is dropped.

        S' counts the tokens that the layers below have left.
        """
        drop = self.layers[layer].drop
        return None if drop is None else drop(raw)

    def resolved(self, thresholds: Sequence[Float32 | None]) -> FilterPlan:
        """The same plan with its thresholds fixed, one entry per layer as `resolve` returned them."""
        if len(thresholds) != len(self.layers):
            raise ValueError(f"{len(self.layers)} layers, but {len(thresholds)} thresholds")
        fixed = [None if values is None else np.asarray(values, np.float32) for values in thresholds]
        for plan, values in zip(self.layers, fixed, strict=True):
            if values is not None and values.shape != plan.is_global.shape:
                raise ValueError(f"thresholds of shape {values.shape} for {plan.is_global.size} units")
        layers = tuple(
            replace(plan, thresholds=values, find=None, identity=b"-")
            for plan, values in zip(self.layers, fixed, strict=True)
        )
        return replace(self, layers=layers)

    def digest(self) -> str:
        """sha256 (hex) of everything that the filtering depends on: equal for plans that filter alike."""
        if self.is_off:
            return hashlib.sha256(b"off").hexdigest()
        hasher = hashlib.sha256(self.policy.canonical().encode())
        hasher.update(f"{self.total_length} {self.training_length} {self.time_step_limit}{self.identity}".encode())
        for layer in self.layers:
            hasher.update(b"|" + np.packbits(layer.is_global).tobytes())
            hasher.update(b"-" if layer.thresholds is None else layer.thresholds.astype("<f4").tobytes())
            hasher.update(layer.identity)
        return hasher.hexdigest()


def build_plan(calibration: Calibration, policy: Policy, total_length: int) -> FilterPlan:
    """The plan for reading `total_length` tokens in all.

    Nothing is filtered up to the training length (`paper`: below the released code's own lower bound). Raises
    CalibrationError where the policy needs what the calibration does not have (`paper`: a clamp without table).
    """
    active = policy.is_active(calibration.training_length, total_length)
    if active:
        layers = policy.plan_layers(calibration, total_length)
    else:
        layers = tuple(LayerPlan.idle(layer.units) for layer in calibration.layers)
    return FilterPlan(
        policy=policy,
        total_length=total_length,
        training_length=calibration.training_length,
        layers=layers,
        time_step_limit=calibration.time_step_limit,
        notices=policy.notices(calibration, layers, total_length) if active else (),
        identity=policy.identity(calibration, total_length) if active else "",
    )


def require_layers(calibration: Calibration, n_layer: int, units: int | Sequence[int]) -> None:
    """Raises CalibrationError where a calibration does not fit a model's number of layers or units.

    `units`: of every layer, or one number for each layer, 0 for those without a scan.
    """
    wanted = [units] * n_layer if isinstance(units, int) else list(units)
    if [layer.units for layer in calibration.layers] != wanted or len(wanted) != n_layer:
        raise CalibrationError("This calibration does not fit the model's layers.", hint="Calibrate this model again.")
