"""`calibrate --report`: a model's calibration as a table, as JSON and as a figure."""

from __future__ import annotations

import json as json_module
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longmamba_mlx.cli.doctor import calibrate_model
from longmamba_mlx.documents import one_line
from longmamba_mlx.filtering.calibration.report import CalibrationReport, calibration_report

if TYPE_CHECKING:
    from longmamba_mlx.filtering.delta import Float64

LENGTHS = tuple(1 << power for power in range(11, 21))
"""2k to 1M tokens."""


def report_calibration(
    model: str, text: Path | None, windows: int, *, encoding: str, filter: str, json: bool, plot: Path | None
) -> None:
    """Print the report; a model is measured first where it never was, or where a text is given for it."""
    from longmamba_mlx.evaluation.plots import draw_calibration, require_matplotlib
    from longmamba_mlx.session.api import load

    if plot is not None:
        require_matplotlib()
    loaded = load(model, filter=filter)
    if text is not None or loaded.calibration is None:
        calibrate_model(model, text, windows, encoding=encoding)
        loaded = load(model, filter=filter)
    if loaded.calibration is None:
        raise RuntimeError("a measured model has its calibration")
    report = calibration_report(loaded.calibration, loaded.policy, LENGTHS)
    if json:
        print(json_module.dumps({"model": model, **_plain(asdict(report))}))
    else:
        _print(model, report)
    if plot is not None:
        draw_calibration(report, plot, title=f"{model}: calibration, filter {report.mode}")


def _print(model: str, report: CalibrationReport) -> None:
    print(f"{one_line(model)}: {report.windows} windows of {report.training_length:,} tokens, filter {report.mode}\n")
    print(f"{'layer':>5} {'units':>6} {'global':>7} {'T: median (least, most)':>32} {'saturates at (tokens)':>32}")
    for layer in report.layers:
        print(f"{layer.layer:>5} {layer.units:>6,} {layer.global_share:>6.0%} {_spread(layer.budgets, '.3g'):>32} "
              f"{_spread(layer.saturation, ',.0f'):>33}")  # fmt: skip
    print(f"\n{'document':>10} {'tokens kept':>12} {'kept step sizes / T: median':>28} {'95th percentile':>16} "
          f"{'saturated units':>16}")  # fmt: skip
    for row in report.lengths:
        print(f"{row.length:>10,} {row.kept_tokens:>11.2%} {row.kept_mass:>28.2f} {row.kept_mass_high:>16.2f} "
              f"{row.saturated:>15.0%}")  # fmt: skip


def _spread(values: Float64, form: str) -> str:
    if not len(values):
        return "-"
    if math.isinf(float(values.min())):
        return "never"
    return f"{np.median(values):{form}} ({values.min():{form}}, {values.max():{form}})"


def _plain(value: Any) -> Any:
    """Arrays as lists; what is infinite has no place in JSON and becomes null."""
    if isinstance(value, np.ndarray):
        return [_plain(float(item)) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
