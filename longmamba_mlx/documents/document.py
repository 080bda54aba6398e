"""The document: clean text, its digest, and the ways to find a place in it."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePath

from longmamba_mlx.documents.blocks import Stretch, blocks, cut, runs
from longmamba_mlx.documents.paragraphs import Paragraph, Paragraphs
from longmamba_mlx.documents.places import Place, PlaceMap, ordered
from longmamba_mlx.documents.sanitise import clean, one_line
from longmamba_mlx.errors import DocumentError

READER_VERSION = 2  # counts up whenever the same bytes become another text
_BETWEEN = "\n\n"  # joined files are separate paragraphs
_SLICE = 1 << 20  # characters hashed at a time


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a document: text[start:end] in characters.

    `marks` are the pages and chapters that its format states, by positions in the whole text; without chapters there,
    they are detected in the text. `notes` are lines for the user ("3 of 90 pages hold no text").
    """

    title: str
    source: str
    start: int
    end: int
    marks: tuple[Place, ...] = ()
    notes: tuple[str, ...] = ()

    def moved(self, by: int) -> Part:
        """The same part, `by` characters further on."""
        marks = tuple(replace(place, start=place.start + by) for place in self.marks)
        return replace(self, start=self.start + by, end=self.end + by, marks=marks)


@dataclass(frozen=True)
class Document:
    """A text to be read. `source` is a path, "stdin", or "text" when it was made in a program.

    Whatever it is made from, `text` is clean: one kind of newline and no control codes (`sanitise`).
    Positions are in characters. Raises DocumentError when nothing but white space is left; ValueError when
    `parts` are given for a text that is not clean, because their positions would be wrong.
    """

    title: str
    text: str
    source: str = "text"
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", one_line(self.title) or "untitled")
        text = clean(self.text)
        if self.parts and text != self.text:
            raise ValueError("parts need a clean text")
        if not self.parts:
            object.__setattr__(self, "text", text)
            object.__setattr__(self, "parts", (Part(self.title, self.source, 0, len(self.text)),))
        if not self.text or self.text.isspace():
            what = "holds nothing but white space" if self.text else "is empty"
            raise DocumentError(f"{self.title!r} {what}.", hint="Give a document that has some text.")

    @cached_property
    def digest(self) -> str:
        """sha256 of the text as UTF-8, hex."""
        digest = hashlib.sha256()
        for start in range(0, len(self.text), _SLICE):
            digest.update(self.text[start : start + _SLICE].encode("utf-8"))
        return digest.hexdigest()

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on how the document was read (guesses, omissions), one line each."""
        return tuple(note for part in self.parts for note in part.notes)

    @cached_property
    def paragraphs(self) -> Paragraphs:
        """All paragraphs, in order; computed on first use."""
        pieces = (cut(self.text, start, end) for start, end in blocks(self.text, 0, len(self.text)))
        return Paragraphs((span for spans in pieces for span in spans), self.place_map.chapter_at)

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """The starts of files (if several), pages and chapters, in order; computed on first use."""
        from longmamba_mlx.documents.headings import find_chapters, numbered  # its patterns take a while to load

        found: list[Place] = []
        for number, part in enumerate(self.parts, 1):
            if len(self.parts) > 1:
                found.append(Place(part.start, "file", part.title, number))
            chapters = [place for place in part.marks if place.kind == "chapter"]
            found.extend(place for place in part.marks if place.kind != "chapter")
            text = Stretch(self.text, part.start, part.end)
            found.extend(numbered(chapters) if chapters else find_chapters(runs([text]), part.end))
        return ordered(found)

    def place_at(self, offset: int) -> str:
        """Return the place of the character at `offset`: "page 12", "Chapter 3: The Whale", "" if unknown.

        The chapter is named if there are no pages; the file's name comes first if there are several.
        """
        return self.place_map.at(offset)

    def find_place(self, text: str) -> int | None:
        """Return the offset where the place named by `text` ends: "chapter 12", "Book Two, chapter 3", "page 40",
        "50%", or words of a heading or file name. None when there is no such place; the first of several.
        """
        return self.place_map.end_of(text)

    def paragraph_at(self, position: int) -> Paragraph:
        """The paragraph that holds the character at `position`, or the last one before it."""
        return self.paragraphs.before(position)

    def part_at(self, position: int) -> Part:
        """The file that the character at `position` comes from, or the last one before it."""
        index = bisect_right(self.parts, position, key=lambda part: part.start)
        return self.parts[max(index - 1, 0)]

    @cached_property
    def place_map(self) -> PlaceMap:
        """All places, searchable by position and by name; computed on first use."""
        return PlaceMap(self.places, [(part.start, part.end) for part in self.parts], len(self.text))


def join(documents: Sequence[Document]) -> Document:
    """Several documents, in the order given, as one. Raises DocumentError when there are none."""
    if not documents:
        raise DocumentError("No document was given.", hint="Name at least one file.")
    if len(documents) == 1:
        return documents[0]
    parts: list[Part] = []
    position = 0
    for document in documents:
        parts.extend(part.moved(position) for part in document.parts)
        position += len(document.text) + len(_BETWEEN)
    titles = [document.title for document in documents]
    title = ", ".join(titles) if len(titles) <= 3 else f"{titles[0]} and {len(titles) - 1} more"
    source = ", ".join(PurePath(document.source).name for document in documents)
    return Document(title, _BETWEEN.join(document.text for document in documents), source, tuple(parts))
