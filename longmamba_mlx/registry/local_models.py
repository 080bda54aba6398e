"""Models that are on this machine already: converted here, downloaded by LM Studio, in the Hub client's cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from longmamba_mlx.conversion.hub.cache import cache_folder, cached_snapshot, repository_folder
from longmamba_mlx.errors import LongMambaError
from longmamba_mlx.ground.hub_id import is_hub_id
from longmamba_mlx.models.folder_facts import FolderFacts, folder_facts
from longmamba_mlx.paths import model_folder
from longmamba_mlx.storage.json_config import read_json

HERE, LM_STUDIO, HUB_CACHE = "converted here", "LM Studio", "Hub cache"
_MOST = 2000  # folders looked at in one place


@dataclass(frozen=True, slots=True)
class LocalModel:
    """`name` is what `--model` takes: a Hub id, or a path; `place`: HERE, LM_STUDIO or HUB_CACHE."""

    name: str
    folder: Path
    place: str
    facts: FolderFacts


def installed_folder(repository: str, variant: str = "") -> Path:
    """The folder of a converted Hub model, existing or not; `variant` names a quantisation ("q4-g64")."""
    return model_folder() / "--".join([*repository.split("/"), *([variant] if variant else [])])


def installed() -> list[Path]:
    """The folders of models that were converted into this program's own place."""
    return sorted(path.parent for path in model_folder().glob("*--*/config.json"))


def find_local(repository: str) -> Path | None:
    """Find a usable folder of a Hub model on this machine; None without one.

    A model converted here is preferred; those of other programs must be complete and in MLX format.
    """
    if installed_folder(repository).is_dir():
        return installed_folder(repository)
    owner, name = repository.split("/")
    places = [folder / owner / name for folder in lm_studio_folders()]
    if (snapshot := cached_snapshot(repository_folder(repository))) is not None:
        places.append(snapshot)
    return next((folder for folder in places if folder.is_dir() and _usable(folder) is not None), None)


def is_of_others(folder: Path) -> bool:
    """Whether a model folder belongs to another program, so that nothing must be written into it."""
    real = folder.resolve()
    return any(real.is_relative_to(place.resolve()) for place in (cache_folder(), *lm_studio_folders()))


def local_models() -> list[LocalModel]:
    """Everything that can be used as it is, by place and name; what is broken or of another family is left out."""
    found = [*_installed(), *_of_lm_studio(), *_of_cache_folder()]
    first: dict[str, LocalModel] = {}
    for model in found:
        first.setdefault(model.name, model)
    return list(first.values())


def lm_studio_folders() -> list[Path]:
    """The folders in which LM Studio keeps its models as owner/name: the usual ones, and the one its settings name."""
    homes = [Path.home() / ".lmstudio", Path.home() / ".cache" / "lm-studio"]
    folders = [home / "models" for home in homes]
    for home in homes:
        with suppress(LongMambaError):
            chosen = read_json(home / "settings.json").get("downloadsFolder")
            if isinstance(chosen, str) and Path(chosen).is_absolute():
                folders.append(Path(chosen))
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _installed() -> Iterator[LocalModel]:
    for folder in installed():
        repository = folder.name.replace("--", "/", 1)
        with suppress(LongMambaError, OSError):
            name = repository if is_hub_id(repository) and "--" not in repository else str(folder)
            yield LocalModel(name, folder, HERE, folder_facts(folder))


def _of_lm_studio() -> Iterator[LocalModel]:
    for place in lm_studio_folders():
        for folder in _folders(place, "*/*"):
            name = f"{folder.parent.name}/{folder.name}"
            if is_hub_id(name) and (facts := _usable(folder)) is not None:
                yield LocalModel(name, folder, LM_STUDIO, facts)


def _of_cache_folder() -> Iterator[LocalModel]:
    for repository in _folders(cache_folder(), "models--*--*"):
        name = repository.name.removeprefix("models--").replace("--", "/", 1)
        folder = cached_snapshot(repository)
        if is_hub_id(name) and folder is not None and (facts := _usable(folder)) is not None:
            yield LocalModel(name, folder, HUB_CACHE, facts)


def _folders(place: Path, pattern: str) -> list[Path]:
    with suppress(OSError):
        return sorted(path for path in place.glob(pattern) if path.is_dir())[:_MOST]
    return []


def _usable(folder: Path) -> FolderFacts | None:
    """The facts of a folder of another program's, None where it cannot be used as it is."""
    if not (folder / "config.json").is_file():
        return None
    with suppress(LongMambaError, OSError):
        facts = folder_facts(folder)
        return facts if facts.is_mlx else None
    return None
