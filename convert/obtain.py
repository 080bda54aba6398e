"""Get a model from the Hub: use it in place if it is in MLX format, else convert it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from longmamba_mlx.conversion.checkpoint import Request, convert_source, find
from longmamba_mlx.errors import ModelError
from longmamba_mlx.models.folder_facts import folder_facts
from longmamba_mlx.paths import model_folder, private_folder


def obtain(request: Request, target: Path) -> Path:
    """The folder of the model that `request` names: downloaded and used where the Hub's client keeps it when it is in
    MLX format and nothing else is asked for, converted into `target` otherwise. Raises ModelError, DiskError."""
    source = find(request)
    unchanged = replace(request, dtype=None, tokenizer=None, form=None)
    if request == unchanged and _is_mlx(source.folder):
        request.report.line(f"{request.hf_path} is in MLX format and is used as it is, in {source.folder}")
        return source.folder
    if target.is_relative_to(model_folder()):
        private_folder(target.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    convert_source(request, source, target)
    return target


def _is_mlx(folder: Path) -> bool:
    try:
        return folder_facts(folder).is_mlx
    except ModelError:  # the conversion says what is wrong, or reads what a plain look does not
        return False
