"""ZIP files are many things: here it is told which, by the names inside, and EPUB and DOCX are read."""

from __future__ import annotations

from typing import IO

from longmamba_mlx.documents.formats.archive import Archive
from longmamba_mlx.documents.formats.builder import Parsed, Refused
from longmamba_mlx.documents.formats.docx import read_docx
from longmamba_mlx.documents.formats.epub import CONTAINER, read_epub

_REFUSED = (
    ("xl/", "excel"),
    ("ppt/", "powerpoint"),
    ("Index/", "pages"),
    ("index.apxl", "pages"),
)


def read_package(file: IO[bytes]) -> Parsed:
    """An EPUB book or a Word document. Raises Refused for any other archive."""
    archive = Archive(file)
    if CONTAINER in archive.names:
        return read_epub(archive)
    if "word/document.xml" in archive.names or _is_word(archive):
        return read_docx(archive)
    for beginning, code in _REFUSED:
        if any(name.startswith(beginning) for name in archive.names):
            raise Refused(code)
    if "mimetype" in archive.names and archive.read("mimetype").startswith(b"application/vnd.oasis.opendocument"):
        raise Refused("opendocument")
    raise Refused("zip")


def _is_word(archive: Archive) -> bool:
    """Some programs name the main file otherwise; the list of types tells."""
    types = "[Content_Types].xml"
    return types in archive.names and b"wordprocessingml.document.main" in archive.read(types)
