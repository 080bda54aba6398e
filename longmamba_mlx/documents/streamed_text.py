"""A text file too large to hold: read from the disk piece by piece, as often as it is needed."""

from __future__ import annotations

import hashlib
import os
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeAlias

from longmamba_mlx.documents import Document, one_line
from longmamba_mlx.documents.decode import (
    UndecodableError,
    clean_between,
    clean_blocks,
    encoding_note,
    located_blocks,
    unmarked_note,
)
from longmamba_mlx.documents.kinds import HEAD, known_format
from longmamba_mlx.errors import DocumentError, StoppedError
from longmamba_mlx.ground.steps import Stop

LARGE = 32 << 20  # bytes; smaller files are held


@dataclass(frozen=True, slots=True)
class LargeText:
    """The part of a `Document` that a reading needs, without its text in memory; its `PassageIndex` has the chapters.

    `length` is in characters; `digest` equals that of the same text as a Document; `identity` identifies the file as
    opened; blocks (2, n): character and byte offsets of its pieces, and its end.
    """

    title: str
    source: str
    digest: str
    length: int
    identity: tuple[int, ...]
    blocks: tuple[array[int], array[int]] = field(repr=False)
    notes: tuple[str, ...] = ()

    def place_at(self, offset: int) -> str:
        """Return "": chapters are not known before the text is indexed."""
        return ""

    def pieces(self, end: int | None = None) -> Iterator[str]:
        """Yield the clean text up to character `end`. Raises DocumentError when the file has changed."""
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

    def between(self, start: int, end: int) -> str:
        """Return the characters start:end, a small range. Raises DocumentError when the file has changed."""
        characters, positions = self.blocks
        first, last = bisect_right(characters, start) - 1, bisect_left(characters, end)
        try:
            with open(self.source, "rb", buffering=0) as file:
                if _identity(file) != self.identity:
                    raise _changed(self.title)
                text = clean_between(file, positions[first], positions[last])
        except (OSError, ValueError) as error:
            raise _changed(self.title, error) from None
        return text[start - characters[first] : end - characters[first]]


Text: TypeAlias = Document | LargeText


def open_large(paths: Sequence[str], should_stop: Stop | None = None) -> LargeText | None:
    """Open a single large text file; return None for anything else, which `documents` reads.

    Reads the file once. Raises StoppedError once `should_stop()`.
    """
    if len(paths) != 1 or paths[0] == "-":
        return None
    path = Path(paths[0])
    try:
        if not path.is_file() or path.stat().st_size <= LARGE:
            return None
        with open(path, "rb", buffering=0) as file:
            if known_format(file.read(HEAD), path.name) is not None:
                return None
            digest, length, blank = hashlib.sha256(), 0, True
            characters, positions = array("Q"), array("Q")
            for piece, position in located_blocks(file):
                if should_stop is not None and should_stop():
                    raise StoppedError
                characters.append(length)
                positions.append(position)
                digest.update(piece.encode("utf-8"))
                length += len(piece)
                blank = blank and (not piece or piece.isspace())
            characters.append(length)
            positions.append(file.tell())
            identity = _identity(file)
            note = unmarked_note(file)
    except (OSError, UnicodeDecodeError, UndecodableError):
        return None  # told where it is read as any other document
    if blank:
        return None
    blocks = characters, positions
    notes = (encoding_note(note),) if note else ()
    return LargeText(one_line(path.name), os.fspath(path), digest.hexdigest(), length, identity, blocks, notes)


def length_of(document: Text) -> int:
    """Characters of the text."""
    return document.length if isinstance(document, LargeText) else len(document.text)


def pieces_of(document: Text, end: int | None = None) -> Iterator[str]:
    """The text up to character `end`, in pieces."""
    if isinstance(document, LargeText):
        yield from document.pieces(end)
    else:
        yield document.text[:end]


def text_between(document: Text, start: int, end: int) -> str:
    """The characters start:end."""
    return document.between(start, end) if isinstance(document, LargeText) else document.text[start:end]


def digest_of(document: Text, end: int) -> str:
    """The digest of a Document that holds the first `end` characters."""
    digest = hashlib.sha256()
    for piece in pieces_of(document, end):
        digest.update(piece.encode("utf-8"))
    return digest.hexdigest()


def _identity(file: IO[bytes]) -> tuple[int, ...]:
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns


def _changed(title: str, error: Exception | None = None) -> DocumentError:
    reason = getattr(error, "strerror", None) or "it has changed"
    return DocumentError(f"{title!r} cannot be read any more: {reason}.", hint="Read it again when it is at rest.")
