"""The document: clean text, its digest, and the ways to find a place in it."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath

from longmamba_mlx.documents.paragraphs import Paragraph, split_paragraphs
from longmamba_mlx.documents.sanitize import clean, one_line
from longmamba_mlx.errors import DocumentError

READER_VERSION = 1  # counts up whenever the same bytes become another text
_BETWEEN = "\n\n"  # joined files are separate paragraphs


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a document: text[start:end] in characters."""

    title: str
    source: str
    start: int
    end: int


@dataclass(frozen=True)
class Document:
    """A text to be read. `source` is a path, "stdin", or "text" when it was made in a program.

    Whatever it is made from, `text` is clean: one kind of newline and no control codes (`sanitize`).
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
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()

    @cached_property
    def paragraphs(self) -> tuple[Paragraph, ...]:
        """All paragraphs, in order; found when first asked for."""
        return tuple(split_paragraphs(self.text))

    def paragraph_at(self, position: int) -> Paragraph:
        """The paragraph that holds the character at `position`, or the last one before it."""
        index = bisect_right(self.paragraphs, position, key=lambda paragraph: paragraph.start)
        return self.paragraphs[max(index - 1, 0)]

    def part_at(self, position: int) -> Part:
        """The file that the character at `position` comes from, or the last one before it."""
        index = bisect_right(self.parts, position, key=lambda part: part.start)
        return self.parts[max(index - 1, 0)]


def join(documents: Sequence[Document]) -> Document:
    """Several documents, in the order given, as one. Raises DocumentError when there are none."""
    if not documents:
        raise DocumentError("No document was given.", hint="Name at least one file.")
    if len(documents) == 1:
        return documents[0]
    parts: list[Part] = []
    position = 0
    for document in documents:
        parts.extend(
            Part(part.title, part.source, position + part.start, position + part.end) for part in document.parts
        )
        position += len(document.text) + len(_BETWEEN)
    titles = [document.title for document in documents]
    title = ", ".join(titles) if len(titles) <= 3 else f"{titles[0]} and {len(titles) - 1} more"
    source = ", ".join(PurePath(document.source).name for document in documents)
    return Document(title, _BETWEEN.join(document.text for document in documents), source, tuple(parts))
