"""A snapshot of an open document for the screen: text, places, and the map of kept shares."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol

from longmamba_mlx.tui.rendering.safe_text import one_for_one
from longmamba_mlx.tui.rendering.unwrap import unwrap
from longmamba_mlx.tui.worker.examples import example_questions

if TYPE_CHECKING:
    from longmamba_mlx.documents import Document, Place

MAP_STRETCHES = 1024


class RegionLike(Protocol):
    """A stretch of the text, in characters; `kept`: how much of it the filter let through, 0 to 1."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def kept(self) -> float: ...
    @property
    def place(self) -> str: ...


class ReadDocumentLike(Protocol):
    """The part of `longmamba_mlx.session.read_document.ReadDocument` that the chat uses."""

    @property
    def document(self) -> Document | None: ...
    @property
    def title(self) -> str: ...
    @property
    def tokens(self) -> int: ...
    @property
    def known_questions(self) -> tuple[str, ...]: ...
    def regions(self, count: int) -> tuple[RegionLike, ...]: ...


@dataclass(frozen=True, eq=False)
class Book:
    """An immutable snapshot made on the engine's thread, all that the screen needs of a read document."""

    title: str
    tokens: int
    document: Document | None
    text: str = ""
    """As shown: safe, every character at its offset in the document; "" when only a state was opened."""
    regions: tuple[RegionLike, ...] = ()
    examples: tuple[str, ...] = ()
    """Questions to begin with."""
    asks_anything: bool = True
    """Whether the model answers any question; a demonstration knows only some kinds."""

    @classmethod
    def of(cls, read: ReadDocumentLike) -> Book:
        """Take the snapshot of a read document."""
        text = unwrap(one_for_one(read.document.text)) if read.document is not None else ""
        chapters = [place.label for place in read.document.places if place.kind == "chapter"] if read.document else []
        known = read.known_questions
        examples = example_questions(text, chapters, known)
        regions = tuple(read.regions(MAP_STRETCHES))
        return cls(read.title, read.tokens, read.document, text, regions, examples, not known)

    @property
    def digest(self) -> str:
        """Identifies its text: a passage belongs to the text it was found in."""
        return self.document.digest if self.document is not None else ""

    @property
    def places(self) -> tuple[Place, ...]:
        """Pages, chapters and files, in the order of the text."""
        return self.document.places if self.document is not None else ()

    def place_at(self, offset: int) -> str:
        """The page or chapter of a character, "" when the document has none."""
        return self.document.place_at(offset) if self.document is not None else ""

    def places_in(self, start: int, end: int) -> Iterator[Place]:
        """The places that start in text[start:end]."""
        first = bisect_right(self.places, start - 1, key=lambda place: place.start)
        return takewhile(lambda place: place.start < end, self.places[first:])

    def next_place(self, offset: int, step: int) -> int | None:
        """The start of the next (step 1) or previous (-1) place; None without one."""
        if step > 0:
            index = bisect_right(self.places, offset, key=lambda place: place.start)
        else:
            index = bisect_right(self.places, offset - 1, key=lambda place: place.start) - 1
        return self.places[index].start if 0 <= index < len(self.places) else None
