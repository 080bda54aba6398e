"""Open what a session was given: a Document, files, or one large text left on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longmamba_mlx.documents import Document
    from longmamba_mlx.documents.streamed_text import Text
    from longmamba_mlx.ground.steps import Stop


def text_of(
    source: Sequence[str] | Document, *, hold_text: bool = True, encoding: str = "", should_stop: Stop | None = None
) -> Text:
    """The text of files read as one, or of a Document. Without `hold_text` a large text file is not held in memory.

    Raises DocumentError and its kinds, StoppedError.
    """
    from longmamba_mlx.documents import Document, read_documents

    if isinstance(source, Document):
        return source
    if not hold_text and not encoding:
        from longmamba_mlx.documents.streamed_text import open_large

        if (large := open_large(source, should_stop or (lambda: False))) is not None:
            return large
    return read_documents(source, should_stop=should_stop, encoding=encoding)
