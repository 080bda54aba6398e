"""Recognise formats packed as ZIP by the names inside. One row for each kind that is read or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

from longmamba_mlx.documents.formats import fictionbook
from longmamba_mlx.documents.formats.archive import Archive
from longmamba_mlx.documents.formats.builder import Parsed, Refused
from longmamba_mlx.documents.formats.docx import read_docx
from longmamba_mlx.documents.formats.epub import CONTAINER, read_epub
from longmamba_mlx.documents.formats.opendocument import read_package as read_opendocument

_REFUSED = (
    ("xl/", "excel"),
    ("ppt/", "powerpoint"),
    ("Index/", "pages"),
    ("index.apxl", "pages"),
)


def read(file: IO[bytes], encoding: str = "") -> Parsed:
    """An EPUB book, a Word or OpenDocument file, or a packed FictionBook. Raises Refused for any other archive."""
    archive = Archive(file)
    for fits, reader in _READ:
        if fits(archive):
            return reader(archive)
    for beginning, code in _REFUSED:
        if any(name.startswith(beginning) for name in archive.names):
            raise Refused(code)
    raise Refused("zip")


def _is_word(archive: Archive) -> bool:
    """Whether a package is a Word file, by its list of types: some programs give the main file another name."""
    types = "[Content_Types].xml"
    return "word/document.xml" in archive.names or (
        types in archive.names and b"wordprocessingml.document.main" in archive.read(types)
    )


def _is_opendocument(archive: Archive) -> bool:
    return (
        "content.xml" in archive.names
        and "mimetype" in archive.names
        and archive.read("mimetype").startswith(b"application/vnd.oasis.opendocument")
    )


def _is_fiction_book(archive: Archive) -> bool:
    return len(archive.names) == 1 and min(archive.names).lower().endswith(".fb2")


def _read_fiction_book(archive: Archive) -> Parsed:
    return fictionbook.read_stream(archive.open(min(archive.names)))


_READ: tuple[tuple[Callable[[Archive], bool], Callable[[Archive], Parsed]], ...] = (
    (lambda archive: CONTAINER in archive.names, read_epub),
    (_is_word, read_docx),
    (_is_opendocument, read_opendocument),
    (_is_fiction_book, _read_fiction_book),
)
