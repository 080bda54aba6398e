"""The model families: one row for each `model_type` of a config.json.

A family is added by a config module, a family module, and a row here. Modules are loaded when a model needs them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from longmamba_mlx.models.base import LanguageModel


class Family(NamedTuple):
    """`config`: the module in models.config whose `parse` reads the config.json; `model`: module and class in
    models.families."""

    config: str
    model: str


ROWS = {
    "mamba": Family("mamba", "mamba.Mamba"),
    "falcon_mamba": Family("mamba", "mamba.Mamba"),
    "mamba2": Family("mamba2", "mamba2.Mamba2"),
    "mamba3": Family("mamba3", "mamba3.Mamba3"),
    "llamba": Family("llamba", "llamba.Llamba"),
    "falcon_h1": Family("falcon_h1", "falcon_h1.FalconH1"),
    "plamo2": Family("plamo2", "plamo2.Plamo2"),
    "phi4flash": Family("phi4flash", "phi4flash.Phi4Flash"),
    "granitemoehybrid": Family("granite", "granite.Granite"),
    "bamba": Family("bamba", "bamba.Bamba"),
    "nemotron_h": Family("nemotron_h", "nemotron_h.NemotronH"),
    "nemotron_h_omni": Family("nemotron_h_omni", "nemotron_h.NemotronH"),
    "jamba": Family("jamba", "jamba.Jamba"),
    "zamba": Family("zamba", "zamba.Zamba"),
    "zamba2": Family("zamba2", "zamba2.Zamba2"),
}


class _Families(Mapping[str, type["LanguageModel"]]):
    """Model type -> class."""

    def __getitem__(self, model_type: str) -> type[LanguageModel]:
        module, name = ROWS[model_type].model.split(".")
        family: type[LanguageModel] = getattr(import_module(f"longmamba_mlx.models.families.{module}"), name)
        return family

    def __iter__(self) -> Iterator[str]:
        return iter(ROWS)

    def __len__(self) -> int:
        return len(ROWS)


FAMILIES = _Families()
