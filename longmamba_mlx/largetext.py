"""A text file too large to hold: read from the disk piece by piece, as often as it is needed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from longmamba_mlx.documents import Document, Place, one_line
from longmamba_mlx.documents.decode import UndecodableError, clean_blocks
from longmamba_mlx.documents.places import PlaceMap
from longmamba_mlx.documents.sniff import HEAD, known_format
from longmamba_mlx.errors import DocumentError

LARGE = 32 << 20  # bytes; smaller files are held, which related passages and chapters need


@dataclass(frozen=True, slots=True)
class LargeText:
    """What a reading needs of a `Document`, without its text in memory; its only places are shares ("50%").

    `length` is in characters; `digest` is the one that the same text has as a Document.
    """

    title: str
    source: str
    digest: str
    length: int
    notes: tuple[str, ...] = ("This text is read from its file piece by piece: no related passages are shown.",)
    places: tuple[Place, ...] = ()

    def place_at(self, offset: int) -> str:
        """ "": chapters are not looked for."""
        return ""

    def find_place(self, text: str) -> int | None:
        """The offset at which a share such as "50%" ends, None for anything else."""
        return PlaceMap((), [(0, self.length)], self.length).end_of(text)

    def pieces(self, end: int | None = None) -> Iterator[str]:
        """The clean text up to character `end`. Raises DocumentError when the file is not what it was."""
        digest, position = hashlib.sha256(), 0
        try:
            with open(self.source, "rb") as file:
                for piece in clean_blocks(file):
                    digest.update(piece.encode("utf-8"))
                    if end is not None and position + len(piece) >= end:
                        yield piece[: end - position]
                        return
                    position += len(piece)
                    yield piece
        except (OSError, ValueError) as error:
            raise _changed(self.title, error) from None
        if digest.hexdigest() != self.digest:
            raise _changed(self.title)


Text: TypeAlias = Document | LargeText


def open_large(paths: Sequence[str]) -> LargeText | None:
    """The file, when it is one large text file; None for everything else, which `documents` reads."""
    if len(paths) != 1 or paths[0] == "-":
        return None
    path = Path(paths[0])
    try:
        if not path.is_file() or path.stat().st_size <= LARGE:
            return None
        with open(path, "rb", buffering=0) as file:
            if known_format(file.read(HEAD)) is not None:
                return None
            digest, length, blank = hashlib.sha256(), 0, True
            for piece in clean_blocks(file):
                digest.update(piece.encode("utf-8"))
                length += len(piece)
                blank = blank and (not piece or piece.isspace())
    except (OSError, UnicodeDecodeError, UndecodableError):
        return None  # told where it is read as any other document
    return None if blank else LargeText(one_line(path.name), os.fspath(path), digest.hexdigest(), length)


def length_of(document: Text) -> int:
    """Characters of the text."""
    return document.length if isinstance(document, LargeText) else len(document.text)


def pieces_of(document: Text, end: int | None = None) -> Iterator[str]:
    """The text up to character `end`, in pieces."""
    if isinstance(document, LargeText):
        yield from document.pieces(end)
    else:
        yield document.text[:end]


def until(document: Document, end: int) -> Document:
    """The first `end` characters as a document, with the pages and chapters in them."""
    parts = tuple(
        replace(part, end=min(part.end, end), marks=tuple(mark for mark in part.marks if mark.start < end))
        for part in document.parts
        if part.start < end
    )
    return replace(document, text=document.text[:end], parts=parts)


def digest_of(document: Text, end: int) -> str:
    """The digest of a Document that holds the first `end` characters."""
    digest = hashlib.sha256()
    for piece in pieces_of(document, end):
        digest.update(piece.encode("utf-8"))
    return digest.hexdigest()


def _changed(title: str, error: Exception | None = None) -> DocumentError:
    reason = getattr(error, "strerror", None) or "it has changed"
    return DocumentError(f"{title!r} cannot be read any more: {reason}.", hint="Read it again when it is at rest.")
