"""Export and import states: with the same text and model, an imported document opens without reading."""

from __future__ import annotations

import shutil
from pathlib import Path

from longmamba_mlx.errors import DiskError, StateMissingError, UsageError
from longmamba_mlx.paths import private_folder
from longmamba_mlx.states.state_file import read_state
from longmamba_mlx.states.store import StateEntry, StateStore
from longmamba_mlx.storage.atomic import write_atomic


def export_state(store: StateStore, prefix: str, path: Path) -> StateEntry:
    """Check the state whose key begins with `prefix` and copy it to `path`. It does not contain the text.

    Raises UsageError (no such state, not finished, `path` exists), StateError, DiskError.
    """
    entry = store.show(prefix)
    if entry.unfinished:
        raise UsageError("This document is not read to its end.", hint="Read it first: the same command resumes.")
    if path.exists():
        raise UsageError(f"{str(path)!r} exists already.", hint="Give another name.")
    read_state(entry.path, key=entry.key)
    _copy(entry.path, path)
    return entry


def import_state(store: StateStore, path: Path) -> StateEntry:
    """Copy an exported file into the store, after every check that needs no model.

    Its shapes are compared with the model's when it is opened. Raises StateError, DiskError.
    """
    if not path.is_file():
        raise StateMissingError(f"There is no file {str(path)!r}.", hint="Give a file that `states export` wrote.")
    stored = read_state(path)
    target = store.path(stored.key)
    private_folder(target.parent)
    _copy(path, target)
    return store.show(stored.key.digest())


def _copy(source: Path, target: Path) -> None:
    try:
        write_atomic(target, lambda draft: shutil.copyfile(source, draft))
    except OSError as error:  # the source went away
        raise DiskError(f"Cannot copy {source.name!r}: {error.strerror}.", hint="Try again.") from None
