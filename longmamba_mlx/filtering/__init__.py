"""LongMamba: long documents through a Mamba model without training (arXiv 2504.16053; arrays in, arrays out).

    calibration = collect(model, windows)                       # once per model
    plan = build_plan(calibration, FilterSettings(), total_length)
    thresholds = plan.resolve(layer, raw) if plan.waits(layer) else plan.thresholds(layer)

In units that remember over a whole training window (global ones) tokens with the smallest step sizes are left
out until the rest sum to what such a window holds: sum over the document of Delta [Delta > g] = T.
"""

from __future__ import annotations

from longmamba_mlx.filtering.calibration.collect import CalibratedModel, calibration_windows, collect, collect_steps
from longmamba_mlx.filtering.calibration.data import FORMAT_VERSION, Calibration, LayerCalibration, PaperTable
from longmamba_mlx.filtering.plan import FilterPlan, LayerPlan, build_plan, require_layers
from longmamba_mlx.filtering.settings import (
    DEFAULT_MODE,
    MODES,
    PUBLISHED,
    Constants,
    FilterSettings,
    constants_for,
    settings_for,
)

__all__ = [
    "DEFAULT_MODE",
    "FORMAT_VERSION",
    "MODES",
    "PUBLISHED",
    "CalibratedModel",
    "Calibration",
    "Constants",
    "FilterPlan",
    "FilterSettings",
    "LayerCalibration",
    "LayerPlan",
    "PaperTable",
    "build_plan",
    "calibration_windows",
    "collect",
    "collect_steps",
    "constants_for",
    "require_layers",
    "settings_for",
]
