"""Documents that have been read, found only by everything they depend on and never trusted before a check.

`<folder>/<key[:2]>/<key>.safetensors` holds one state (`statefile`); `<key>.reading` beside it is the checkpoint of a
reading that is not at its end, and `<key>.places/` holds states from places inside the document (`waypoints`). A
file that is broken or belongs to something else is set aside as *.bad and the document is read again: no state is
lost, none believed blindly.
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
from longmamba_mlx.paths import private_folder
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
_MARGIN = 4  # more digits shown than were asked for, so that an ambiguous prefix can be completed


class Maps(TypedDict, total=False):
    """What a state file may hold besides the state; see `statefile.StoredState`."""

    kept: npt.NDArray[np.uint8] | None
    text_map: npt.NDArray[np.int64] | None
    ids: str


@dataclass(frozen=True, slots=True)
class StateEntry:
    """One document of the store. `key` and `info` are None when `problem` says why it cannot be used.

    `nbytes` counts its places too. `done` is how many of the key's tokens are read: fewer in a checkpoint.
    """

    digest: str
    path: Path
    nbytes: int
    modified: float  # when it was made or last used, in seconds since 1970
    key: StateKey | None
    info: dict[str, Any] | None
    problem: str = ""
    done: int = 0

    @property
    def unfinished(self) -> bool:
        """Whether this is a checkpoint, from which the same command goes on."""
        return self.path.suffix == READING


class StateStore:
    """The folder of read documents. `warn` gets one line whenever a stored state could not be used."""

    def __init__(self, folder: str | Path, *, warn: Callable[[str], object] | None = None) -> None:
        self.folder = Path(folder)
        self._warn = warn or (lambda line: None)

    def path(self, key: StateKey) -> Path:
        """Where the state with this key lies, or would."""
        return self._path(key, SUFFIX)

    def checkpoint_path(self, key: StateKey) -> Path:
        """Where the checkpoint of a reading with this key lies, or would."""
        return self._path(key, READING)

    def places_folder(self, key: StateKey) -> Path:
        """Where states from inside the document with this key lie, or would."""
        return self._path(key, PLACES)

    def passages_path(self, key: StateKey) -> Path:
        """Where the index of the passages of the document with this key lies, or would: it goes when its state goes."""
        return self.places_folder(key) / "passages.sqlite"

    def _path(self, key: StateKey, suffix: str) -> Path:
        digest = key.digest()
        return self.folder / digest[:2] / f"{digest}{suffix}"

    def save(
        self, key: StateKey, state: ModelState, thresholds: Sequence[Threshold], info: Info, **maps: Unpack[Maps]
    ) -> Path:
        """Store a state atomically -> its file. Raises DiskError; NumericError for NaN or infinity in it."""
        if state.tokens != key.tokens:
            raise ValueError(f"a state after {state.tokens} tokens is not that of {key.tokens}")
        path = self.path(key)
        private_folder(path.parent)
        atomic.sweep(path.parent)
        write_state(path, key, state, thresholds, info, **maps)
        return path

    def stored_keys(self) -> Iterator[StateKey]:
        """The keys of all stored states, told by their headers; unusable files are passed over."""
        for path in self._files(SUFFIX):
            with suppress(StateError):
                yield read_key(path)[0]

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
                stored = read_state(path, key=key, like=like)
                with suppress(OSError):
                    os.utime(path)  # the size limit takes those first that were not used for longest
                return stored
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
        """All stored states and checkpoints, the newest first, told by their headers: data is checked when used."""
        paths = [*self._files(SUFFIX), *self._files(READING)]
        entries = [entry for path in paths if (entry := _entry(path)) is not None]
        return tuple(sorted(entries, key=lambda entry: (-entry.modified, entry.digest)))

    def show(self, prefix: str) -> StateEntry:
        """The stored state whose key begins with `prefix`. Raises UsageError unless there is exactly one."""
        wanted = prefix.strip().lower()
        # A state comes after its own checkpoint and takes its place.
        paths = {path.stem: path for suffix in (READING, SUFFIX) for path in self._files(suffix)}
        digests = sorted(digest for digest in paths if wanted and digest.startswith(wanted))
        if len(digests) > 1:
            some = ", ".join(digest[: len(wanted) + _MARGIN] for digest in digests[:3])
            raise UsageError(f"{len(digests)} stored states begin with {wanted!r}.", hint=f"Give more: {some}.")
        entry = _entry(paths[digests[0]]) if digests else None
        if entry is None:
            hint = "`longmamba-mlx states ls` lists their keys."
            raise UsageError(f"No stored state begins with {wanted[:64]!r}.", hint=hint)
        return entry

    def remove(self, prefix: str) -> StateEntry:
        """Delete the stored state whose key begins with `prefix`, and all that belongs to it; return what it was.

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
        """Files that were set aside because they could not be trusted."""
        return tuple(sorted(self.folder.glob(f"[0-9a-f][0-9a-f]/*{BAD}")))

    def remove_bad(self) -> int:
        """Delete them -> how many. Raises DiskError."""
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
    nbytes = status.st_size + _bytes_in(path.with_suffix(PLACES))
    try:
        key, info, done = read_key(path)
    except StateError as error:
        return StateEntry(path.stem, path, nbytes, status.st_mtime, None, None, str(error))
    problem = "" if key.digest() == path.stem else "Its name is not its key."
    return StateEntry(path.stem, path, nbytes, status.st_mtime, key, info, problem, done)


def _bytes_in(folder: Path) -> int:
    total = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                total += entry.stat(follow_symlinks=False).st_size
    return total
