"""The model families, in one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from longmamba_mlx.models.base import LanguageModel
from longmamba_mlx.models.families.mamba import Mamba
from longmamba_mlx.models.families.mamba2 import Mamba2
from longmamba_mlx.models.state import LayerState, ModelState

__all__ = ["FAMILIES", "LanguageModel", "LayerState", "Mamba", "Mamba2", "ModelState"]

_CLASSES = {
    "mamba": "mamba.Mamba",
    "falcon_mamba": "mamba.Mamba",
    "mamba2": "mamba2.Mamba2",
    "falcon_h1": "falcon_h1.FalconH1",
    "granitemoehybrid": "granite.Granite",
    "bamba": "bamba.Bamba",
    "nemotron_h": "nemotron_h.NemotronH",
    "jamba": "jamba.Jamba",
    "zamba2": "zamba2.Zamba2",
}


class _Families(Mapping[str, type[LanguageModel]]):
    """Model type -> class, loaded when it is asked for: one model needs one of them."""

    def __getitem__(self, model_type: str) -> type[LanguageModel]:
        module, name = _CLASSES[model_type].split(".")
        family: type[LanguageModel] = getattr(import_module(f"{__name__}.families.{module}"), name)
        return family

    def __iter__(self) -> Iterator[str]:
        return iter(_CLASSES)

    def __len__(self) -> int:
        return len(_CLASSES)


FAMILIES = _Families()
