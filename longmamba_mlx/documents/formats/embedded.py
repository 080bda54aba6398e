"""Read text, HTML, mail and RTF files embedded in a document (Word's altChunk)."""

from __future__ import annotations

import io

from longmamba_mlx.documents.decode import UndecodableError, decode, encoding_note
from longmamba_mlx.documents.formats import mail, markup, rtf
from longmamba_mlx.documents.formats.builder import Refused, TextBuilder
from longmamba_mlx.documents.kinds import HEAD, known_format

_READERS = {"markup": markup.read, "mail": mail.read, "rtf": rtf.read}


def add_embedded(data: bytes, name: str, out: TextBuilder) -> None:
    """Write the text of a file within a document, or note that it was not read."""
    known = known_format(data[:HEAD], name)
    try:
        if known is None:
            decoded = decode(data)
            if decoded.note:
                out.note(encoding_note(decoded.note))
            for paragraph in decoded.text.replace("\r\n", "\n").split("\n\n"):
                out.paragraph(paragraph)
        elif known.reader in _READERS:
            out.add(_READERS[known.reader](io.BytesIO(data)))
        else:
            out.note(f"{known.name[:1].upper()}{known.name[1:]} within the document was not read.")
    except (Refused, UndecodableError):
        out.note(f"A part of the document was not read: {name}")
