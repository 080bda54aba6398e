"""LongMamba: long documents through a Mamba model without training (arXiv 2504.16053; arrays in, arrays out).

    calibration = collect(model, windows)                       # once per model
    plan = build_plan(calibration, policy_for(config, "paper"), total_length)
    thresholds = plan.resolve(layer, raw) if plan.waits(layer) else plan.thresholds(layer)

In units that remember over a whole training window (global ones) tokens with the smallest step sizes are left
out until the rest sum to what such a window holds: sum over the document of dt [dt > threshold] = T.

Names are loaded when they are first used: the command line reads `registry` for its help, without NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longmamba_mlx.filtering.calibration.collect import CalibratedModel as CalibratedModel
    from longmamba_mlx.filtering.calibration.collect import calibration_windows as calibration_windows
    from longmamba_mlx.filtering.calibration.collect import collect as collect
    from longmamba_mlx.filtering.calibration.collect import collect_steps as collect_steps
    from longmamba_mlx.filtering.calibration.data import Calibration as Calibration
    from longmamba_mlx.filtering.constants import constants_for as constants_for
    from longmamba_mlx.filtering.names import policy_for as policy_for
    from longmamba_mlx.filtering.plan import FilterPlan as FilterPlan
    from longmamba_mlx.filtering.plan import build_plan as build_plan
    from longmamba_mlx.filtering.policies.base import Policy as Policy

_HOMES = {
    "CalibratedModel": "calibration.collect",
    "Calibration": "calibration.data",
    "FilterPlan": "plan",
    "Policy": "policies.base",
    "build_plan": "plan",
    "calibration_windows": "calibration.collect",
    "collect": "calibration.collect",
    "collect_steps": "calibration.collect",
    "constants_for": "constants",
    "policy_for": "names",
}

__all__ = [
    "CalibratedModel",
    "Calibration",
    "FilterPlan",
    "Policy",
    "build_plan",
    "calibration_windows",
    "collect",
    "collect_steps",
    "constants_for",
    "policy_for",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
