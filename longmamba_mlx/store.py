"""Documents that have been read, found only by everything they depend on and never trusted before a check.

`<folder>/<key[:2]>/<key>.safetensors` holds one state (`statefile`). A file that is broken or belongs to
something else is set aside as *.bad and the document is read again: no state is lost, none believed blindly.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longmamba_mlx import safeio
from longmamba_mlx.errors import DiskError, StateError, UsageError
from longmamba_mlx.paths import private_folder
from longmamba_mlx.statefile import FORMAT_VERSION as FORMAT_VERSION
from longmamba_mlx.statefile import Info, UnreadableStateError, read_key, write_state
from longmamba_mlx.statefile import StateKey as StateKey
from longmamba_mlx.statefile import StoredState as StoredState
from longmamba_mlx.statefile import read_state as read_state

if TYPE_CHECKING:
    from longmamba_mlx.models.state import ModelState
    from longmamba_mlx.statefile import Threshold

SUFFIX = ".safetensors"
BAD = ".bad"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MARGIN = 4  # more digits shown than were asked for, so that an ambiguous prefix can be completed


@dataclass(frozen=True, slots=True)
class StateEntry:
    """One file of the store. `key` and `info` are None when `problem` says why it cannot be used."""

    digest: str
    path: Path
    nbytes: int
    modified: float  # seconds since 1970
    key: StateKey | None
    info: dict[str, Any] | None
    problem: str = ""


class StateStore:
    """The folder of read documents. `warn` gets one line whenever a stored state could not be used."""

    def __init__(self, folder: str | Path, *, warn: Callable[[str], object] | None = None) -> None:
        self.folder = Path(folder)
        self._warn = warn or (lambda line: None)

    def path(self, key: StateKey) -> Path:
        """Where the state with this key lies, or would."""
        digest = key.digest()
        return self.folder / digest[:2] / f"{digest}{SUFFIX}"

    def save(self, key: StateKey, state: ModelState, thresholds: Sequence[Threshold], info: Info) -> Path:
        """Store a state atomically -> its file. Raises DiskError; NumericError for NaN or infinity in it."""
        path = self.path(key)
        private_folder(path.parent)
        safeio.sweep(path.parent)
        write_state(path, key, state, thresholds, info)
        return path

    def load(self, key: StateKey, *, like: ModelState | None = None) -> StoredState | None:
        """The state stored under `key`; None when there is none, or none that can be trusted.

        `like` is a state of the same model, whose shapes the stored one must have. A file that fails a check
        is renamed to *.bad, one that cannot be read just now stays; `warn` is told either way.
        """
        path = self.path(key)
        for _ in range(2):
            identity = _identity(path)
            if identity is None:
                return None
            try:
                return read_state(path, key=key, like=like)
            except UnreadableStateError as error:
                self._warn(str(error))
                return None
            except StateError as error:
                problem = str(error)
            if _identity(path) == identity:
                self._set_aside(path, problem)
                return None
            # Another process has put a new file there meanwhile: that one deserves its own judgement.
        return None

    def _set_aside(self, path: Path, problem: str) -> None:
        try:
            os.replace(path, path.with_name(path.name + BAD))
        except OSError as error:
            self._warn(f"{problem} It cannot be set aside either: {error.strerror}.")
        else:
            self._warn(f"{problem} It was set aside as a {BAD} file.")

    def list(self) -> tuple[StateEntry, ...]:
        """All stored states, the newest first, told by their headers: the data is checked when it is used."""
        entries = [entry for path in self._files() if (entry := _entry(path)) is not None]
        return tuple(sorted(entries, key=lambda entry: (-entry.modified, entry.digest)))

    def show(self, prefix: str) -> StateEntry:
        """The stored state whose key begins with `prefix`. Raises UsageError unless there is exactly one."""
        wanted = prefix.strip().lower()
        digests = sorted(path.stem for path in self._files() if wanted and path.stem.startswith(wanted))
        if len(digests) > 1:
            some = ", ".join(digest[: len(wanted) + _MARGIN] for digest in digests[:3])
            raise UsageError(f"{len(digests)} stored states begin with {wanted!r}.", hint=f"Give more: {some}.")
        path = self.folder / digests[0][:2] / f"{digests[0]}{SUFFIX}" if digests else None
        entry = _entry(path) if path is not None else None
        if entry is None:
            hint = "`longmamba-mlx states ls` lists their keys."
            raise UsageError(f"No stored state begins with {wanted[:64]!r}.", hint=hint)
        return entry

    def remove(self, prefix: str) -> StateEntry:
        """Delete the stored state whose key begins with `prefix`, and return what it was.

        Raises UsageError as `show` does, and DiskError.
        """
        entry = self.show(prefix)
        folder = entry.path.parent
        try:
            entry.path.unlink(missing_ok=True)
            entry.path.with_name(entry.path.name + BAD).unlink(missing_ok=True)
        except OSError as error:
            hint = f"Make the folder {str(folder)!r} writable."
            raise DiskError(f"Cannot delete {entry.path.name!r}: {error.strerror}.", hint=hint) from None
        with suppress(OSError):
            folder.rmdir()  # succeeds only when it is empty
        return entry

    def _files(self) -> Iterator[Path]:
        for path in self.folder.glob(f"[0-9a-f][0-9a-f]/*{SUFFIX}"):
            if _DIGEST.fullmatch(path.stem) and path.stem.startswith(path.parent.name):
                yield path


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Tells a file from the one that replaces it; None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _entry(path: Path) -> StateEntry | None:
    try:
        status = path.stat()
    except OSError:
        return None  # removed since it was listed
    try:
        key, info = read_key(path)
    except StateError as error:
        return StateEntry(path.stem, path, status.st_size, status.st_mtime, None, None, str(error))
    problem = "" if key.digest() == path.stem else "Its name is not its key."
    return StateEntry(path.stem, path, status.st_size, status.st_mtime, key, info, problem)
