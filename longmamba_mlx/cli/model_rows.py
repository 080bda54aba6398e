"""What `longmamba-mlx models` lists: one table of facts for each model."""

from __future__ import annotations

from pathlib import Path

from longmamba_mlx import builtin
from longmamba_mlx.errors import ModelError
from longmamba_mlx.models.folder_facts import folder_facts
from longmamba_mlx.registry import resolve
from longmamba_mlx.registry.known_models import (
    CAVEATS,
    CHECKPOINTS,
    Checkpoint,
    Recommendation,
    recommendations,
    recommended,
    usable_bytes,
)
from longmamba_mlx.registry.local_models import LocalModel, installed_folder, local_models

BUILT_IN = "built in"

Row = dict[str, object]


def model_rows() -> list[Row]:
    """Recommended models (this machine's first), then what is on this machine, then the other known ones."""
    here = {model.name: model for model in local_models()}
    default = resolve.user_default() or resolve.DEFAULT
    for_memory = recommendations()
    mine = recommended()
    first = list(dict.fromkeys([mine.checkpoint, *(row.checkpoint for row in for_memory)]))
    variants = {checkpoint.repository: _variants(checkpoint, here, default) for checkpoint in CHECKPOINTS}
    shown = {path for paths in variants.values() for path in paths}
    local = [_local_row(model, default) for model in here.values() if str(model.folder) not in shown]
    known = [
        _known_row(checkpoint, for_memory, mine, variants[checkpoint.repository], here, default)
        for checkpoint in (*first, *(known for known in CHECKPOINTS if known not in first))
    ]
    count = len(first)
    return [*known[:count], *_built_in(default), *_chosen_folder(default, here), *local, *known[count:]]


def _known_row(
    checkpoint: Checkpoint,
    for_memory: tuple[Recommendation, ...],
    mine: Recommendation,
    variants: list[str],
    here: dict[str, LocalModel],
    default: str,
) -> Row:
    local = here.get(checkpoint.repository)
    return {
        "model": checkpoint.repository,
        "family": checkpoint.family,
        "parameters": int(checkpoint.parameters * 1e9),
        "bits": local.facts.bits if local else 8 * checkpoint.bytes_per_weight,
        "download_bytes": checkpoint.download_bytes,
        "context": checkpoint.context,
        "licence": checkpoint.licence,
        "chat": not CAVEATS[checkpoint.kind].startswith("completes"),
        "kind": checkpoint.kind,
        "caveat": CAVEATS[checkpoint.kind],
        "fits": checkpoint.fit(),
        "installed": variants,
        "place": local.place if local else "",
        "default": default == checkpoint.repository or default in variants,
        "recommended_gigabytes": [row.gigabytes for row in for_memory if row.checkpoint == checkpoint],
        "recommended_quantised": [row.quantised for row in for_memory if row.checkpoint == checkpoint],
        "recommended_here": mine.command if mine.checkpoint == checkpoint else None,
    }


def _variants(checkpoint: Checkpoint, here: dict[str, LocalModel], default: str) -> list[str]:
    """The folders on this machine that hold a known checkpoint, as it was published or quantised by this program."""
    own = installed_folder(checkpoint.repository).name
    return [
        str(model.folder)
        for model in here.values()
        if model.name == checkpoint.repository or model.folder.name == own or model.folder.name.startswith(f"{own}--")
    ]


def _local_row(model: LocalModel, default: str) -> Row:
    name = model.name if "/" in model.name and not Path(model.name).is_absolute() else _short(model.folder)
    return {
        "model": name,
        "family": model.facts.family,
        "bits": model.facts.bits,
        "download_bytes": model.facts.size,
        "caveat": "",
        "fits": "yes" if model.facts.size <= usable_bytes() else "no",
        "installed": [str(model.folder)],
        "place": model.place,
        "default": default in (model.name, str(model.folder)),
    }


def _short(folder: Path) -> str:
    return folder.name.replace("--", "/", 1)


def _built_in(default: str) -> list[Row]:
    rows: list[Row] = []
    for name in builtin.BUILT_IN:
        folder = builtin.built_in_model(name)
        facts = folder_facts(folder)
        row = _local_row(LocalModel(name, folder, BUILT_IN, facts), default)
        rows.append(row | {"model": name, "caveat": builtin.described(name)})
    return rows


def _chosen_folder(default: str, here: dict[str, LocalModel]) -> list[Row]:
    """A default that is a folder elsewhere; also one that cannot be read any more."""
    folder = Path(default)
    if not folder.is_dir() or any(model.folder == folder for model in here.values()):
        return []
    try:
        facts = folder_facts(folder)
    except ModelError:
        return []
    return [_local_row(LocalModel(str(folder), folder, "folder", facts), default) | {"model": folder.name}]
