"""Cut a document into parts that are read each from a fresh state, and keep their states between questions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from longmamba_mlx.errors import DiskError, StateError
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.paths import private_folder
from longmamba_mlx.states.size_limit import limit_of, make_room
from longmamba_mlx.states.state_file import Info, StateKey, read_state, write_state
from longmamba_mlx.states.store import SUFFIX, StateStore

LONGEST = 2048  # tokens of a part, unless so many parts would be too many; OPRM's chunks have 1,000 to 3,000
MOST = 4096
_OVERLAP = 16  # a part begins a sixteenth of its shortest size before the end of the one before it...
_LONGEST_OVERLAP = 128  # ...but not more tokens, so that no sentence is cut in both
_IN_MEMORY = 1 << 30  # bytes of states that are held without a store
STORED = 2 << 30  # bytes of states that are stored
_ROWS, _ROW_BYTES = 32, 256 << 20  # parts that are asked together


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts of a document of `total` tokens: each has `size`, and shares `overlap` of them with the next one. The
    last one ends with the document."""

    total: int
    size: int
    overlap: int

    @property
    def count(self) -> int:
        return 1 + max(0, -(-(self.total - self.size) // (self.size - self.overlap)))

    def span(self, number: int) -> tuple[int, int]:
        """First token and end of a part, counted from 0."""
        start = max(0, min(number * (self.size - self.overlap), self.total - self.size))
        return start, min(start + self.size, self.total)

    def groups(self, rows: int) -> Iterator[range]:
        """The numbers of the parts, `rows` at a time."""
        for first in range(0, self.count, rows):
            yield range(first, min(first + rows, self.count))


def layout_of(
    total: int, training_length: int, state_bytes: int, budget: int, *, longest: int = LONGEST, most: int = MOST
) -> Layout:
    """Parts as short as possible: a training length or `longest` tokens, doubled until there are at most `most`, whose
    states of `state_bytes` each fit in `budget` bytes."""
    size = min(training_length, longest)
    overlap = min(size // _OVERLAP, _LONGEST_OVERLAP)
    most = max(2, min(most, budget // state_bytes)) if state_bytes else most
    while Layout(total, size, overlap).count > most:
        size *= 2
    return Layout(total, min(size, total), min(overlap, total - 1))


def rows_for(state_bytes: int) -> int:
    """How many parts are asked together."""
    return max(1, min(_ROWS, _ROW_BYTES // max(state_bytes, 1)))


class Shelf(Protocol):
    """Where the states of a document's parts are kept, a group of them as one state of a batch."""

    @property
    def budget(self) -> int:
        """Bytes that all of them may take."""

    @property
    def where(self) -> str:
        """Where that is, for people."""

    def load(self, group: range, layout: Layout, like: ModelState) -> ModelState | None:
        """The states of a group; None where they are not kept. `like`: an initial state of as many sequences."""

    def save(self, group: range, layout: Layout, state: ModelState) -> None:
        """Keep the states of a group, if there is room."""

    def done(self) -> Iterator[str]:
        """All groups are there: make room for them. Yields lines for people, also on what went wrong before."""


@dataclass
class MemoryShelf:
    """Keeps the states of one layout in memory, as long as the document is open; those over the budget not at all."""

    budget: int = _IN_MEMORY
    where: str = "held in memory"
    _layout: Layout | None = None
    _states: dict[int, ModelState] = field(default_factory=dict)

    def load(self, group: range, layout: Layout, like: ModelState) -> ModelState | None:
        return self._states.get(group.start) if layout == self._layout else None

    def save(self, group: range, layout: Layout, state: ModelState) -> None:
        if layout != self._layout:
            self._layout, self._states = layout, {}
        if sum(kept.nbytes for kept in self._states.values()) + state.nbytes <= self.budget:
            self._states[group.start] = state

    def done(self) -> Iterator[str]:
        yield from ()


@dataclass
class StoredShelf:
    """Keeps them as files beside the stored state of the document; they are counted and deleted with it."""

    store: StateStore
    key: StateKey
    where: str = "remembered with the document"
    _full: bool = False
    _notes: list[str] = field(default_factory=list)

    @property
    def budget(self) -> int:
        return min(STORED, limit_of(self.store) // 4)

    def load(self, group: range, layout: Layout, like: ModelState) -> ModelState | None:
        path = self._path(group, layout)
        if not path.exists():
            return None
        try:
            found = read_state(path, key=self.key, like=like, whole=False)
        except StateError as error:
            self._notes.append(f"{error} These parts are read again.")
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        return found.state if found.info == self._info(group, layout) else None

    def save(self, group: range, layout: Layout, state: ModelState) -> None:
        if self._full:
            return
        path = self._path(group, layout)
        try:
            private_folder(path.parent)
            write_state(path, self.key, state, (), self._info(group, layout))
        except DiskError as error:
            self._full = True
            self._notes.append(f"The parts' states cannot be stored, the next question reads them again: {error}")

    def done(self) -> Iterator[str]:
        notes, self._notes = self._notes, []
        yield from notes
        if not self._full:
            yield from make_room(self.store, keep=self.key)

    def _path(self, group: range, layout: Layout) -> Path:
        return self.store.places_folder(self.key) / f"part-{layout.size}-{group.start:06}{SUFFIX}"

    @staticmethod
    def _info(group: range, layout: Layout) -> Info:
        return {"first": group.start, "parts": len(group), "size": layout.size, "overlap": layout.overlap}
