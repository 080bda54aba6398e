"""The model families, in one table."""

from __future__ import annotations

from longmamba_mlx.models.base import LanguageModel
from longmamba_mlx.models.mamba import Mamba
from longmamba_mlx.models.mamba2 import Mamba2
from longmamba_mlx.models.state import LayerState, ModelState

__all__ = ["FAMILIES", "LanguageModel", "LayerState", "Mamba", "Mamba2", "ModelState"]

FAMILIES: dict[str, type[LanguageModel]] = {"mamba": Mamba, "falcon_mamba": Mamba, "mamba2": Mamba2}
