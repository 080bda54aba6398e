"""States from inside a document, on disk: to go on after a crash, and to answer as of a place.

While a document is read one checkpoint is kept and overwritten; it goes when the reading is stored. Besides, a few
states at places inside the document stay, as many as MOST_PLACES and PLACE_BYTES allow: from the nearest of them a
question "as of chapter 12" needs to read only what is between, and a document that has grown only what is new. All of
them are taken after whole chunks, so that reading on from them gives the same numbers to the last bit.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from longmamba_mlx.errors import DiskError, StateError
from longmamba_mlx.paths import private_folder
from longmamba_mlx.states.state_file import Info, StateKey, StoredState, read_state, write_state
from longmamba_mlx.states.store import SUFFIX, StateStore
from longmamba_mlx.storage import atomic

if TYPE_CHECKING:
    from longmamba_mlx.inference.prefill import Ids, Kept
    from longmamba_mlx.models.state import ModelState

EVERY_TOKENS = 32_768
EVERY_SECONDS = 10.0
MOST_COST = 0.01  # of the reading's time, for writing checkpoints
LONGEST_WAIT = 60.0  # seconds without a checkpoint, unless writing one takes more than 3 of them
MOST_PLACES = 16
PLACE_BYTES = 64 << 20  # of all places of a document together, unless one state alone is larger
CLOSEST_PLACES = 8_192  # tokens between two of them
_HASHED = 1 << 20  # ids hashed at once


@dataclass
class Waypoints:
    """The checkpoint and the places of one reading. `follow` is called after every chunk.

    `warn` gets one line when the disk takes no more: the reading goes on without. `state_bytes` is the size of a state
    (before the first token: that of a hybrid grows).
    """

    store: StateStore
    key: StateKey
    ids: Ids
    info: Info
    warn: Callable[[str], object]
    state_bytes: int = 0
    clock: Callable[[], float] = time.monotonic
    _latest: tuple[ModelState, Kept | None] | None = None
    _waiting: list[tuple[ModelState, str]] = field(default_factory=list)
    _place_bytes: int = 0
    _saved_tokens: int = 0
    _saved_at: float = 0.0
    _cost: float = 0.0
    _broken: bool = False

    def __post_init__(self) -> None:
        self._saved_at = self.clock()
        self._digest = _IdDigest(self.ids)
        self._wanted = frozenset(places_of(len(self.ids), self.key.chunk, self.state_bytes))

    def begin(self, like: ModelState) -> StoredState | None:
        """The checkpoint to go on from; None when there is none that can be trusted. `like`: the initial state."""
        path = self.store.checkpoint_path(self.key)
        atomic.sweep(path.parent)
        atomic.sweep(self.store.places_folder(self.key))
        found = trusted(path, self.key, like, self.warn) if path.exists() else None
        if found is None or found.ids != self._digest.after(found.state.tokens):
            return None
        self.begin_at(found.state.tokens)
        return found

    def begin_at(self, tokens: int) -> None:
        """The reading begins after so many tokens."""
        self._saved_tokens = tokens
        with suppress(OSError):
            places = self.store.places_folder(self.key).glob(f"*{SUFFIX}")
            self._place_bytes = sum(path.stat().st_size for path in places)

    @property
    def saved(self) -> int:
        """How many tokens the next run need not read."""
        return self._saved_tokens

    def follow(self, state: ModelState, kept: Kept | None) -> None:
        """A chunk is read: write what is due."""
        self._latest = state, kept
        if self._broken:
            return
        if state.tokens in self._wanted and (not self._place_bytes or self._place_bytes + state.nbytes <= PLACE_BYTES):
            self._place_bytes += state.nbytes
            self._waiting.append((state, self._digest.after(state.tokens)))
        if self._due(state.tokens):
            self.write()

    def write(self) -> None:
        """Write the latest state now, for the next run to go on from."""
        if self._latest is None or self._broken or not self._saved_tokens < self._latest[0].tokens < len(self.ids):
            return
        started = self.clock()
        state, kept = self._latest
        self._saved_at = started
        path = self.store.checkpoint_path(self.key)
        try:
            private_folder(path.parent)
            write_state(path, self.key, state, (), self.info, kept=kept, ids=self._digest.after(state.tokens))
            self._saved_tokens = state.tokens
            self.write_places()
        except DiskError as error:
            self._broken = True
            self.warn(f"No checkpoint can be written, reading goes on without: {error}")
        self._saved_at = self.clock()
        self._cost = self._saved_at - started

    def write_places(self) -> None:
        """Write the places that are still in memory. Raises DiskError."""
        folder = self.store.places_folder(self.key)
        while self._waiting:
            state, ids = self._waiting[0]
            private_folder(folder)
            write_state(folder / f"{state.tokens:012}{SUFFIX}", self.key, state, (), self.info, ids=ids)
            self._waiting.pop(0)

    def finish(self) -> None:
        """The reading is stored: its checkpoint is not needed any more."""
        with suppress(OSError):
            self.store.checkpoint_path(self.key).unlink(missing_ok=True)

    def digest(self) -> str:
        """The sha256 of all ids."""
        return self._digest.after(len(self.ids))

    def _due(self, tokens: int) -> bool:
        since = self.clock() - self._saved_at
        enough = tokens - self._saved_tokens >= EVERY_TOKENS or since >= EVERY_SECONDS
        return enough and since >= min(self._cost / MOST_COST, max(LONGEST_WAIT, 20 * self._cost))


def places_of(total: int, chunk: int, state_bytes: int = 0) -> tuple[int, ...]:
    """The token counts at which states stay: evenly spread, and the last whole chunk, all multiples of `chunk`."""
    if total < 2 * CLOSEST_PLACES:
        return ()
    most = max(1, min(MOST_PLACES, PLACE_BYTES // max(state_bytes, 1)))
    apart = -(-max(total // most, CLOSEST_PLACES) // chunk) * chunk
    last = (total - 1) // chunk * chunk
    spread = [place for place in range(apart, total, apart) if place < last]
    return (*spread[: most - 1], last)


def nearest_place(
    folder: Path, key: StateKey, ids: Ids, like: ModelState, warn: Callable[[str], object]
) -> StoredState | None:
    """The last state stored in `folder` for `key` that comes from a beginning of `ids`; None when there is none."""
    digest = _IdDigest(ids)
    tokens = sorted((int(path.stem) for path in folder.glob(f"*{SUFFIX}") if path.stem.isdecimal()), reverse=True)
    for count in tokens:
        if 0 < count <= len(ids):
            found = trusted(folder / f"{count:012}{SUFFIX}", key, like, warn)
            if found is not None and found.ids == digest.after(found.state.tokens):
                return found
    return None


def trusted(path: Path, key: StateKey, like: ModelState, warn: Callable[[str], object]) -> StoredState | None:
    """A checkpoint that passes every check. One that does not is deleted: all it could do is save time."""
    try:
        return read_state(path, key=key, like=like, whole=False)
    except StateError as error:
        warn(f"{error} What it was to save is read again.")
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return None


class _IdDigest:
    """sha256 over the first ids, taken further as the reading goes on."""

    def __init__(self, ids: Ids) -> None:
        self._ids, self._hash, self._done = ids, hashlib.sha256(), 0

    def after(self, tokens: int) -> str:
        if tokens < self._done:
            self._hash, self._done = hashlib.sha256(), 0
        for start in range(self._done, tokens, _HASHED):
            part = self._ids[start : min(start + _HASHED, tokens)]
            self._hash.update(np.ascontiguousarray(part, "<u4").tobytes())
        self._done = tokens
        return self._hash.copy().hexdigest()
