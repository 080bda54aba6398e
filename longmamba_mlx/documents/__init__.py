"""Read files and pipes as clean text with paragraphs, chapters and parts.

The functions that sanitise text are imported here; readers are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from longmamba_mlx.documents.sanitise import one_line as one_line
from longmamba_mlx.documents.sanitise import sanitise as sanitise

if TYPE_CHECKING:
    from longmamba_mlx.documents.document import READER_VERSION as READER_VERSION
    from longmamba_mlx.documents.document import Document as Document
    from longmamba_mlx.documents.document import Part as Part
    from longmamba_mlx.documents.document import join as join
    from longmamba_mlx.documents.paragraphs import Paragraph as Paragraph
    from longmamba_mlx.documents.places import Place as Place
    from longmamba_mlx.documents.reader import from_bytes as from_bytes
    from longmamba_mlx.documents.reader import from_stdin as from_stdin
    from longmamba_mlx.documents.reader import read_document as read_document
    from longmamba_mlx.documents.reader import read_documents as read_documents

_LAZY = {
    "READER_VERSION": "document",
    "Document": "document",
    "Part": "document",
    "join": "document",
    "Paragraph": "paragraphs",
    "Place": "places",
    "from_bytes": "reader",
    "from_stdin": "reader",
    "read_document": "reader",
    "read_documents": "reader",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"longmamba_mlx.documents.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
