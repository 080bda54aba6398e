"""The models one can choose from: built in, already here, known ones that fit this machine."""

from __future__ import annotations

from dataclasses import dataclass

from longmamba_mlx import builtin
from longmamba_mlx.hub_id import is_hub_id
from longmamba_mlx.registry import resolve
from longmamba_mlx.registry.known_models import CHECKPOINTS, Checkpoint
from longmamba_mlx.sizes import format_size


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """`name` is what `/model` takes, `detail` one line for a person."""

    name: str
    detail: str


def model_choices() -> list[ModelChoice]:
    """What is here first, then what fits into this machine's memory as it is: chat models, then base models."""
    choices = [
        ModelChoice(name, "built in: a demonstration that knows one kind of question") for name in builtin.BUILT_IN
    ]
    here = {folder.name: folder for folder in resolve.installed()}
    for name, folder in here.items():
        repository = name.replace("--", "/", 1)
        choices.append(ModelChoice(repository if "--" not in repository else str(folder), "installed"))
    fitting = [checkpoint for checkpoint in CHECKPOINTS if checkpoint.fit() == "yes"]
    fitting.sort(key=lambda checkpoint: (not checkpoint.chat, checkpoint.parameters))
    choices += [_choice(known) for known in fitting if known.repository.replace("/", "--") not in here]
    return choices


def _choice(checkpoint: Checkpoint) -> ModelChoice:
    parts = [
        format_size(checkpoint.download_bytes),
        f"{checkpoint.parameters:g} B",
        "chat" if checkpoint.chat else "base model: completes text, not tuned to answer",
        checkpoint.licence or "",
    ]
    return ModelChoice(checkpoint.repository, " · ".join(part for part in parts if part))


def download_size(name: str) -> int | None:
    """Bytes to download before a model can be used, 0 when nobody knows; None when nothing has to be."""
    if resolve.is_here(name) or not is_hub_id(name):
        return None
    return next((known.download_bytes for known in CHECKPOINTS if known.repository == name), 0)
