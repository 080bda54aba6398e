"""Documents: files and pipes -> clean text with paragraphs, chapters and parts. Knows text, never models."""

from __future__ import annotations

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
from longmamba_mlx.documents.sanitize import one_line as one_line
from longmamba_mlx.documents.sanitize import sanitize as sanitize
