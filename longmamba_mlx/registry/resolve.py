"""Resolve a model's name to a folder: built in, local, or from the Hub; and the default model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from longmamba_mlx.builtin import BUILT_IN, built_in_model
from longmamba_mlx.errors import ConfigError, ModelMissingError, UsageError
from longmamba_mlx.ground.hub_id import is_hub_id
from longmamba_mlx.paths import config_file, private_folder
from longmamba_mlx.storage.json_config import read_json

if TYPE_CHECKING:
    from longmamba_mlx.conversion.report import Report

DEFAULT = "demo"
_KEY = "model"


def resolve(name: str, *, offline: bool = False, report: Report | None = None) -> Path:
    """The model folder of `name`: a built-in model, a folder, or a Hub id.

    A Hub model in MLX format is used in place, on this machine or in the Hub client's cache; any other is converted on
    first use. `report` receives a download's progress. Raises ModelError with a hint when there is no such model.
    """
    if name in BUILT_IN:
        return built_in_model(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not is_hub_id(name):
        raise ModelMissingError(
            f"There is no model {name!r}.",
            hint=f"Give a model folder, a Hub id (owner/name), or one of: {', '.join(BUILT_IN)}.",
        )
    from longmamba_mlx.registry.local_models import find_local, installed_folder  # not needed by --help

    if (found := find_local(name)) is not None:
        return found
    from longmamba_mlx.conversion.checkpoint import Request
    from longmamba_mlx.conversion.obtain import obtain
    from longmamba_mlx.conversion.report import Silent

    return obtain(Request(name, offline=offline, report=report or Silent()), installed_folder(name))


def is_here(name: str) -> bool:
    """Whether a model can be loaded without a download: built in, a folder, or a Hub model already on this machine."""
    if name in BUILT_IN or Path(name).expanduser().is_dir():
        return True
    from longmamba_mlx.registry.local_models import find_local

    return is_hub_id(name) and find_local(name) is not None


def user_default() -> str | None:
    """The model that `longmamba-mlx use` made the default; None where that is the built-in one.

    Raises ConfigError for a settings file that is broken.
    """
    path = config_file()
    if not path.is_file():
        return None
    name = _settings().get(_KEY)
    if name is not None and (not isinstance(name, str) or not name.isprintable() or not name):
        raise ConfigError(f"The default model in {path} is not a name.", hint="Set it again: longmamba-mlx use demo")
    return name or None


def set_user_default(name: str | None) -> None:
    """Make `name` the default model, None for the built-in one. Raises UsageError for control characters, DiskError."""
    from longmamba_mlx.storage.atomic import write_text  # not needed by the chat's start

    if name is not None and not name.isprintable():
        raise UsageError(f"{name!a} has control characters in it.", hint="Rename the folder.")
    path = config_file()
    try:
        settings = _settings() if path.is_file() else {}
    except ConfigError:
        settings = {}  # broken: written anew
    settings = {key: value for key, value in settings.items() if key != _KEY} | ({} if name is None else {_KEY: name})
    private_folder(path.parent)
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    write_text(path, text)


def _settings() -> dict[str, object]:
    try:
        return read_json(config_file())
    except ConfigError as error:
        raise ConfigError(
            f"The settings in {config_file()}: {error}", hint="longmamba-mlx use demo writes them anew"
        ) from error
