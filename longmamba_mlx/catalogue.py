"""Where a model named on the command line or in `load` lies: built in, a folder, or on the Hub."""

from __future__ import annotations

import re
from pathlib import Path

from longmamba_mlx.errors import ModelError
from longmamba_mlx.paths import model_folder

BUILT_IN = ("demo", "demo-mamba1")
DEFAULT = "demo"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def sample_document() -> Path:
    """The document that `longmamba-mlx demo` reads."""
    return _built_in_folder() / "sample.txt"


def resolve(name: str, *, offline: bool = False) -> Path:
    """The model folder of `name`: a built-in model, a folder, or a Hub id (converted here on first use).

    Raises ModelError where there is none, with a hint.
    """
    if name in BUILT_IN:
        return _built_in_folder() / name
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not _HUB_ID.fullmatch(name):
        raise ModelError(
            f"There is no model {name!r}.",
            hint=f"Give a model folder, a Hub id (owner/name), or one of: {', '.join(BUILT_IN)}.",
        )
    target = model_folder() / name.replace("/", "--")
    if not target.is_dir():
        from longmamba_mlx.convert import convert

        target.parent.mkdir(parents=True, exist_ok=True)
        convert(name, target, offline=offline)
    return target


def _built_in_folder() -> Path:
    return Path(__file__).resolve().parent / "builtin"
