"""The models: layers with a carried state, and the table of families.

Importing this package loads neither MLX nor a model: config.json files are read without them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from longmamba_mlx.models.registry import FAMILIES

if TYPE_CHECKING:
    from longmamba_mlx.models.base import LanguageModel as LanguageModel
    from longmamba_mlx.models.families.mamba import Mamba as Mamba
    from longmamba_mlx.models.families.mamba2 import Mamba2 as Mamba2
    from longmamba_mlx.models.state import LayerState as LayerState
    from longmamba_mlx.models.state import ModelState as ModelState

__all__ = ["FAMILIES", "LanguageModel", "LayerState", "Mamba", "Mamba2", "ModelState"]

_LAZY = {
    "LanguageModel": "base",
    "LayerState": "state",
    "Mamba": "families.mamba",
    "Mamba2": "families.mamba2",
    "ModelState": "state",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
