"""The model families, in one table; importing it loads nothing, so that a config can be read without MLX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longmamba_mlx.models.base import LanguageModel as LanguageModel
    from longmamba_mlx.models.families.mamba import Mamba as Mamba
    from longmamba_mlx.models.families.mamba2 import Mamba2 as Mamba2
    from longmamba_mlx.models.state import LayerState as LayerState
    from longmamba_mlx.models.state import ModelState as ModelState

__all__ = ["FAMILIES", "LanguageModel", "LayerState", "Mamba", "Mamba2", "ModelState"]

_LAZY = {
    "LanguageModel": "base",
    "Mamba": "families.mamba",
    "Mamba2": "families.mamba2",
    "LayerState": "state",
    "ModelState": "state",
}

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


class _Families(Mapping[str, "type[LanguageModel]"]):
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


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
