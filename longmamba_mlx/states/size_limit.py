"""The size limit of the store: the least recently used documents are deleted beyond it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from longmamba_mlx.documents.sanitise import one_line
from longmamba_mlx.errors import LongMambaError, UsageError
from longmamba_mlx.ground import sizes
from longmamba_mlx.ground.sizes import format_size
from longmamba_mlx.paths import private_folder
from longmamba_mlx.states.state_file import StateKey
from longmamba_mlx.states.store import StateEntry, StateStore
from longmamba_mlx.storage.atomic import write_text
from longmamba_mlx.storage.json_config import read_json

DEFAULT_LIMIT = 8_000_000_000  # bytes


def limit_of(store: StateStore) -> int:
    """The size limit of a store in bytes, as set by `set_limit`."""
    try:
        value = read_json(_file(store)).get("bytes")
    except LongMambaError:
        return DEFAULT_LIMIT
    return value if isinstance(value, int) and value >= 0 else DEFAULT_LIMIT


def set_limit(store: StateStore, nbytes: int) -> None:
    """Set the limit; nothing is deleted until the next document is stored. Raises DiskError."""
    private_folder(store.folder)
    text = json.dumps({"bytes": nbytes}) + "\n"
    write_text(_file(store), text)


def parse_size(text: str) -> int:
    """Parse a size ("500 MB", "8GB") -> bytes. Raises UsageError."""
    try:
        return sizes.parse_size(text)
    except ValueError:
        raise UsageError(f"Invalid size {one_line(text, 40)!r}.", hint="For example 500MB or 8GB.") from None


def make_room(store: StateStore, *, keep: StateKey) -> Iterator[str]:
    """Delete the least recently used documents until the rest fits the limit; `keep` stays.

    Yields one line for each document before it is deleted. Raises DiskError.
    """
    for entry, total in over_limit(store, keep=keep):
        yield (
            f"Remembered documents take {format_size(total)}, over the limit of {format_size(limit_of(store))}: "
            f"forgetting {title_of(entry)} ({format_size(entry.nbytes)}), not used for longest."
        )
        store.remove(entry.digest)


def over_limit(store: StateStore, *, keep: StateKey | None = None) -> list[tuple[StateEntry, int]]:
    """The documents to delete until the rest fits the limit, the least recently used first; `keep` is not one.

    Each comes with the bytes that all documents take before it goes.
    """
    entries = store.list()
    total, limit, kept = sum(entry.nbytes for entry in entries), limit_of(store), keep.digest() if keep else ""
    found = []
    for entry in reversed(entries):
        if total > limit and entry.digest != kept:
            found.append((entry, total))
            total -= entry.nbytes
    return found


def title_of(entry: StateEntry) -> str:
    """The title of a stored document on one line."""
    return one_line(str((entry.info or {}).get("title", entry.digest[:12])), 60)


def _file(store: StateStore) -> Path:
    return store.folder / "limit.json"
