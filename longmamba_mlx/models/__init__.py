"""The model families, in one table."""

from __future__ import annotations

from longmamba_mlx.models.bamba import Bamba
from longmamba_mlx.models.base import LanguageModel
from longmamba_mlx.models.falcon_h1 import FalconH1
from longmamba_mlx.models.granite import Granite
from longmamba_mlx.models.jamba import Jamba
from longmamba_mlx.models.mamba import Mamba
from longmamba_mlx.models.mamba2 import Mamba2
from longmamba_mlx.models.nemotron_h import NemotronH
from longmamba_mlx.models.state import LayerState, ModelState
from longmamba_mlx.models.zamba2 import Zamba2

__all__ = ["FAMILIES", "LanguageModel", "LayerState", "Mamba", "Mamba2", "ModelState"]

FAMILIES: dict[str, type[LanguageModel]] = {
    "mamba": Mamba,
    "falcon_mamba": Mamba,
    "mamba2": Mamba2,
    "falcon_h1": FalconH1,
    "granitemoehybrid": Granite,
    "bamba": Bamba,
    "nemotron_h": NemotronH,
    "jamba": Jamba,
    "zamba2": Zamba2,
}
