"""Checkpoints: states from inside a document, to resume its prefill and to answer as of a place.

During a prefill one checkpoint is kept and overwritten; it is deleted once the final state is stored. Besides, up to
MOST_PLACES states (PLACE_BYTES in all) are stored at places inside the document: a question "as of chapter 12" reads on
from the nearest of them, a document that has grown from the last. All are taken after whole chunks, so that reading on
from them gives bitwise the same result.
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
    from longmamba_mlx.inference.kept_share import Kept
    from longmamba_mlx.inference.pieces import Ids
    from longmamba_mlx.models.state import ModelState

EVERY_TOKENS = 32_768
EVERY_SECONDS = 10.0
MOST_COST = 0.01  # share of the prefill's time that writing checkpoints may take
LONGEST_WAIT = 60.0  # seconds without a checkpoint, unless writing one takes more than 3 seconds
MOST_PLACES = 16
PLACE_BYTES = 64 << 20  # of all places of a document together, unless one state alone is larger
CLOSEST_PLACES = 8_192  # tokens between two places
_HASHED = 1 << 20  # ids hashed at once


@dataclass
class CheckpointWriter:
    """Writes the checkpoint and the places of one prefill; pass `on_chunk` to it.

    `warn` receives one line when the disk is full; the prefill continues without checkpoints. `state_bytes` is the size
    of the initial state (that of a hybrid grows with the tokens).
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

    def load(self, like: ModelState) -> StoredState | None:
        """The checkpoint to resume from; None without a valid one. `like` is the initial state."""
        path = self.store.checkpoint_path(self.key)
        atomic.sweep(path.parent)
        atomic.sweep(self.store.places_folder(self.key))
        found = _load_valid(path, self.key, like, self.warn) if path.exists() else None
        if found is None or found.ids != self._digest.after(found.state.tokens):
            return None
        self.resume_from(found.state.tokens)
        return found

    def resume_from(self, tokens: int) -> None:
        """Note that the prefill resumes after `tokens` tokens."""
        self._saved_tokens = tokens
        with suppress(OSError):
            places = self.store.places_folder(self.key).glob(f"*{SUFFIX}")
            self._place_bytes = sum(path.stat().st_size for path in places)

    @property
    def saved(self) -> int:
        """How many tokens the next run can skip."""
        return self._saved_tokens

    def on_chunk(self, state: ModelState, kept: Kept | None) -> None:
        """Take the state after a chunk, and write what is due."""
        self._latest = state, kept
        if self._broken:
            return
        if state.tokens in self._wanted and (not self._place_bytes or self._place_bytes + state.nbytes <= PLACE_BYTES):
            self._place_bytes += state.nbytes
            self._waiting.append((state, self._digest.after(state.tokens)))
        if self._due(state.tokens):
            self.write()

    def write(self) -> None:
        """Write the latest state now, for the next run to resume from."""
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
            self.warn(f"No checkpoint can be written; reading continues without: {error}")
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
        """Delete the checkpoint: the final state is stored."""
        with suppress(OSError):
            self.store.checkpoint_path(self.key).unlink(missing_ok=True)

    def digest(self) -> str:
        """The SHA-256 of all ids, in hex."""
        return self._digest.after(len(self.ids))

    def _due(self, tokens: int) -> bool:
        since = self.clock() - self._saved_at
        enough = tokens - self._saved_tokens >= EVERY_TOKENS or since >= EVERY_SECONDS
        return enough and since >= min(self._cost / MOST_COST, max(LONGEST_WAIT, 20 * self._cost))


def places_of(total: int, chunk: int, state_bytes: int = 0) -> tuple[int, ...]:
    """The token counts after which states are kept: evenly spread, and the last whole chunk; multiples of `chunk`."""
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
    """The last state stored in `folder` for `key` whose tokens are a beginning of `ids`; None when there is none."""
    digest = _IdDigest(ids)
    tokens = sorted((int(path.stem) for path in folder.glob(f"*{SUFFIX}") if path.stem.isdecimal()), reverse=True)
    for count in tokens:
        if 0 < count <= len(ids):
            found = _load_valid(folder / f"{count:012}{SUFFIX}", key, like, warn)
            if found is not None and found.ids == digest.after(found.state.tokens):
                return found
    return None


def _load_valid(path: Path, key: StateKey, like: ModelState, warn: Callable[[str], object]) -> StoredState | None:
    """A checkpoint that passes every check. One that does not is deleted: it can only save time."""
    try:
        return read_state(path, key=key, like=like, whole=False)
    except StateError as error:
        warn(f"{error} Its part of the document is read again.")
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return None


class _IdDigest:
    """The SHA-256 of the first ids, extended as the prefill proceeds."""

    def __init__(self, ids: Ids) -> None:
        self._ids, self._hash, self._done = ids, hashlib.sha256(), 0

    def after(self, tokens: int) -> str:
        """The digest (hex) of the first `tokens` ids."""
        if tokens < self._done:
            self._hash, self._done = hashlib.sha256(), 0
        for start in range(self._done, tokens, _HASHED):
            part = self._ids[start : min(start + _HASHED, tokens)]
            self._hash.update(np.ascontiguousarray(part, "<u4").tobytes())
        self._done = tokens
        return self._hash.copy().hexdigest()
