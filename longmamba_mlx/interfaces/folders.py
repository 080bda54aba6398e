"""The folders whose files other programs may ask for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longmamba_mlx.documents import one_line
from longmamba_mlx.documents.gathering import gather
from longmamba_mlx.errors import UsageError


class OutsideError(UsageError):
    """A path that is not under an allowed folder. Says nothing about whether there is such a file."""


@dataclass(frozen=True, slots=True)
class Folders:
    """The allowed folders, absolute and with their symbolic links resolved; None: files are taken from anywhere."""

    allowed: tuple[Path, ...] | None

    @classmethod
    def of(cls, names: Sequence[str | Path]) -> Folders:
        """The folders given with --allow, by default the current folder. Raises UsageError for anything else."""
        folders = []
        for name in names or (".",):
            folder = _resolved(str(name))
            if folder is None or not folder.is_dir():
                raise UsageError(f"There is no folder {one_line(str(name))!r}.", hint="Give --allow a folder.")
            folders.append(folder)
        return cls(tuple(dict.fromkeys(folders)))

    def path(self, name: str) -> Path:
        """The file or folder that is meant, links resolved; a relative name is looked up in each allowed folder.

        Raises OutsideError for one that is not under an allowed folder, or holds a link that leads out of it;
        UsageError for an empty name.
        """
        if not name.strip():
            raise UsageError("The path is empty.", hint="Name a file or folder.")
        folders = self.allowed or (Path.cwd(),)
        paths = [path for folder in folders if (path := _resolved(name, folder)) is not None and self._holds(path)]
        if not paths:
            raise self._outside(name)
        path = next((path for path in paths if os.path.exists(path)), paths[0])
        for found in gather([path]):
            if not self._holds(found.path.resolve()):
                raise self._outside(f"{name}/{found.title}")
        return path

    def _holds(self, path: Path) -> bool:
        return self.allowed is None or any(path.is_relative_to(folder) for folder in self.allowed)

    def _outside(self, name: str) -> OutsideError:
        folders = ", ".join(one_line(str(folder), 100) for folder in self.allowed or ())
        return OutsideError(
            f"{one_line(name, 200)!r} is outside the folders whose files may be read: {folders}.",
            hint="Start the server with --allow FOLDER for another folder.",
        )


def _resolved(name: str, folder: Path | None = None) -> Path | None:
    """An absolute path without symbolic links; None for a name that cannot be a path."""
    try:
        path = Path(name).expanduser()
        return (path if folder is None else folder / path).resolve()
    except (OSError, RuntimeError, ValueError):  # a NUL, a loop of links, an unknown user
        return None
