"""The store of states: found by a digest of everything they depend on, checked before they are used.

`<folder>/<key[:2]>/<key>.safetensors` holds one state (`state_file`); `<key>.reading` beside it is the checkpoint of an
unfinished prefill, and `<key>.places/` holds states from places inside the document (`checkpoints`). A file that is
broken or has another key is renamed to *.bad, and its document is read again.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from longmamba_mlx.errors import DiskError, StateError, UsageError
from longmamba_mlx.paths import make_private, private_folder
from longmamba_mlx.states.state_file import FORMAT_VERSION as FORMAT_VERSION
from longmamba_mlx.states.state_file import Info, UnreadableStateError, read_key, write_state
from longmamba_mlx.states.state_file import StateKey as StateKey
from longmamba_mlx.states.state_file import StoredState as StoredState
from longmamba_mlx.states.state_file import read_state as read_state
from longmamba_mlx.storage import atomic

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from longmamba_mlx.models.state import ModelState
    from longmamba_mlx.states.state_file import Threshold

SUFFIX = ".safetensors"
READING = ".reading"
PLACES = ".places"
BAD = ".bad"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MARGIN = 4  # extra digits shown, so that an ambiguous prefix can be completed


class Maps(TypedDict, total=False):
    """What a state file may hold besides the state; see `state_file.StoredState`."""

    kept: npt.NDArray[np.uint8] | None
    text_map: npt.NDArray[np.int64] | None
    ids: str


@dataclass(frozen=True, slots=True)
class StateEntry:
    """One document of the store. `key` and `info` are None when it cannot be used; `problem` says why.

    `nbytes` includes its places. `done` is how many of the key's tokens are read: fewer than all in a checkpoint.
    """

    digest: str
    path: Path
    nbytes: int
    modified: float  # when it was written or last used, in seconds since 1970
    key: StateKey | None
    info: dict[str, Any] | None
    problem: str = ""
    done: int = 0

    @property
    def unfinished(self) -> bool:
        """Whether this is a checkpoint, from which the same command resumes."""
        return self.path.suffix == READING


class StateStore:
    """The folder of stored states. `warn` receives one line whenever a stored state cannot be used."""

    def __init__(self, folder: str | Path, *, warn: Callable[[str], object] | None = None) -> None:
        self.folder = Path(folder)
        self._warn = warn or (lambda line: None)

    def path(self, key: StateKey) -> Path:
        """The path of the state with this key, whether it exists or not."""
        return self._path(key, SUFFIX)

    def checkpoint_path(self, key: StateKey) -> Path:
        """The path of the checkpoint of a prefill with this key."""
        return self._path(key, READING)

    def places_folder(self, key: StateKey) -> Path:
        """The folder of the states from inside the document with this key."""
        return self._path(key, PLACES)

    def passages_path(self, key: StateKey) -> Path:
        """The path of the passage index of the document with this key; it is deleted with the state."""
        return self.places_folder(key) / "passages.sqlite"

    def _path(self, key: StateKey, suffix: str) -> Path:
        return self.path_of(key.digest(), suffix)

    def path_of(self, digest: str, suffix: str = SUFFIX) -> Path:
        """The path of the state whose key has this digest; with another suffix, of what belongs to it."""
        return self.folder / digest[:2] / f"{digest}{suffix}"

    def save(
        self, key: StateKey, state: ModelState, thresholds: Sequence[Threshold], info: Info, **maps: Unpack[Maps]
    ) -> Path:
        """Store a state atomically -> its file. Raises DiskError; NumericError for NaN or infinity in it."""
        if state.tokens != key.tokens:
            raise ValueError(f"a state after {state.tokens} tokens does not match a key of {key.tokens}")
        path = self.path(key)
        private_folder(path.parent)
        atomic.sweep(path.parent)
        write_state(path, key, state, thresholds, info, **maps)
        return path

    def make_private(self) -> None:
        """Take the rights of others to files that an earlier version stored."""
        for folder, _, names in os.walk(self.folder):
            for name in names:
                make_private(Path(folder, name))

    def stored_keys(self) -> Iterator[StateKey]:
        """Yield the keys of all stored states, read from their headers; unusable files are skipped."""
        for path in self._files(SUFFIX):
            with suppress(StateError):
                yield read_key(path)[0]

    def load(self, key: StateKey, *, like: ModelState | None = None) -> StoredState | None:
        """Load the state stored under `key`; None when there is no valid one.

        `like` is the model's initial state, whose shapes the stored one must have. A file that fails a check is renamed
        to *.bad, one that cannot be read at the moment stays; `warn` receives a line in both cases.
        """
        path = self.path(key)
        for _ in range(2):
            identity = _identity(path)
            if identity is None:
                return None
            try:
                stored = read_state(path, key=key, like=like)
                with suppress(OSError):
                    os.utime(path)  # the size limit evicts the least recently used first
                return stored
            except UnreadableStateError as error:
                self._warn(str(error))
                return None
            except StateError as error:
                problem = str(error)
            if _identity(path) == identity:
                self._set_aside(path, problem)
                return None
            # Another process has replaced the file meanwhile: check the new one.
        return None

    def _set_aside(self, path: Path, problem: str) -> None:
        try:
            os.replace(path, path.with_name(path.name + BAD))
        except OSError as error:
            self._warn(f"{problem} It cannot be renamed either: {error.strerror}.")
        else:
            self._warn(f"{problem} It was renamed to *{BAD}.")

    def list(self) -> tuple[StateEntry, ...]:
        """All stored states and checkpoints, the newest first, by their headers; data is checked when it is used."""
        paths = [*self._files(SUFFIX), *self._files(READING)]
        entries = [entry for path in paths if (entry := _entry(path)) is not None]
        return tuple(sorted(entries, key=lambda entry: (-entry.modified, entry.digest)))

    def show(self, prefix: str) -> StateEntry:
        """The stored state whose key begins with `prefix`. Raises UsageError unless there is exactly one."""
        wanted = prefix.strip().lower()
        # A state overrides its own checkpoint.
        paths = {path.stem: path for suffix in (READING, SUFFIX) for path in self._files(suffix)}
        digests = sorted(digest for digest in paths if wanted and digest.startswith(wanted))
        if len(digests) > 1:
            some = ", ".join(digest[: len(wanted) + _MARGIN] for digest in digests[:3])
            raise UsageError(f"{len(digests)} stored states begin with {wanted!r}.", hint=f"Give more digits: {some}.")
        entry = _entry(paths[digests[0]]) if digests else None
        if entry is None:
            hint = "`longmamba-mlx states ls` lists their keys."
            raise UsageError(f"No stored state begins with {wanted[:64]!r}.", hint=hint)
        return entry

    def remove(self, prefix: str) -> StateEntry:
        """Delete the stored state whose key begins with `prefix`, and all files of it; return its entry.

        Raises UsageError as `show` does, and DiskError.
        """
        entry = self.show(prefix)
        folder = entry.path.parent
        try:
            for suffix in (SUFFIX, READING):
                (folder / f"{entry.digest}{suffix}").unlink(missing_ok=True)
                (folder / f"{entry.digest}{suffix}{BAD}").unlink(missing_ok=True)
            if (places := folder / f"{entry.digest}{PLACES}").exists():
                shutil.rmtree(places)
        except OSError as error:
            hint = f"Make the folder {str(folder)!r} writable."
            raise DiskError(f"Cannot delete {entry.path.name!r}: {error.strerror}.", hint=hint) from None
        with suppress(OSError):
            folder.rmdir()  # succeeds only when it is empty
        return entry

    def bad(self) -> tuple[Path, ...]:
        """The files that were renamed to *.bad."""
        return tuple(sorted(self.folder.glob(f"[0-9a-f][0-9a-f]/*{BAD}")))

    def remove_bad(self) -> int:
        """Delete the *.bad files -> how many. Raises DiskError."""
        paths = self.bad()
        for path in paths:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                hint = f"Make the folder {str(path.parent)!r} writable."
                raise DiskError(f"Cannot delete {path.name!r}: {error.strerror}.", hint=hint) from None
        return len(paths)

    def _files(self, suffix: str) -> Iterator[Path]:
        for path in self.folder.glob(f"[0-9a-f][0-9a-f]/*{suffix}"):
            if _DIGEST.fullmatch(path.stem) and path.stem.startswith(path.parent.name):
                yield path


def _identity(path: Path) -> tuple[int, int, int] | None:
    """What distinguishes a file from its replacement; None when there is no file."""
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
    nbytes = status.st_size + _bytes_in(path.with_suffix(PLACES))
    try:
        key, info, done = read_key(path)
    except StateError as error:
        return StateEntry(path.stem, path, nbytes, status.st_mtime, None, None, str(error))
    problem = "" if key.digest() == path.stem else "Its name does not match its key."
    return StateEntry(path.stem, path, nbytes, status.st_mtime, key, info, problem, done)


def _bytes_in(folder: Path) -> int:
    total = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                total += entry.stat(follow_symlinks=False).st_size
    return total
