"""The models one can choose from: recommended, built in, on this machine, known ones that fit its memory."""

from __future__ import annotations

from dataclasses import dataclass

from longmamba_mlx import builtin
from longmamba_mlx.ground.hub_id import is_hub_id
from longmamba_mlx.ground.sizes import format_size
from longmamba_mlx.registry import resolve
from longmamba_mlx.registry.known_models import CAVEATS, CHECKPOINTS, Checkpoint, recommended
from longmamba_mlx.registry.local_models import LocalModel, local_models


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """`name` is what `/model` takes, `detail` one line for a person."""

    name: str
    detail: str


def model_choices() -> list[ModelChoice]:
    """The recommended model, local models, then those that fit this machine's memory unquantised."""
    here = {model.name: model for model in local_models()}
    best = recommended(quantise=False).checkpoint
    fitting = [checkpoint for checkpoint in CHECKPOINTS if checkpoint.fit() == "yes"]
    fitting.sort(key=lambda checkpoint: (CAVEATS[checkpoint.kind], checkpoint.parameters))
    return [
        *([ModelChoice(best.repository, f"recommended · {_facts(best)}")] if best.repository not in here else []),
        *(_local(model, best) for model in here.values()),
        *(ModelChoice(name, f"built in · {builtin.described(name)}") for name in builtin.BUILT_IN),
        *(
            ModelChoice(known.repository, _facts(known))
            for known in fitting
            if known.repository not in here and known != best
        ),
    ]


def _local(model: LocalModel, best: Checkpoint) -> ModelChoice:
    parts = [
        "recommended" if model.name == best.repository else "",
        model.place,
        model.facts.family,
        f"{model.facts.bits} bit",
        format_size(model.facts.size),
    ]
    return ModelChoice(model.name, " · ".join(part for part in parts if part))


def _facts(checkpoint: Checkpoint) -> str:
    parts = [
        format_size(checkpoint.download_bytes),
        f"{checkpoint.parameters:g} B",
        checkpoint.licence or "",
        CAVEATS[checkpoint.kind] or checkpoint.kind,
    ]
    return " · ".join(part for part in parts if part)


def download_size(name: str) -> int | None:
    """Bytes to download before a model can be used, 0 if unknown; None if nothing has to be downloaded."""
    if resolve.is_here(name) or not is_hub_id(name):
        return None
    return next((known.download_bytes for known in CHECKPOINTS if known.repository == name), 0)
