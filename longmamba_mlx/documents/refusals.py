"""Why a file is refused, in words: one line and what to do about it."""

from __future__ import annotations

from longmamba_mlx.documents.formats.builder import Refused
from longmamba_mlx.documents.kinds import EXPORT, UNPACK
from longmamba_mlx.errors import DocumentError

_OCR = "Make its text readable first, for example: ocrmypdf FILE.pdf NEW.pdf"
_AGAIN = "Download or export it again; if it opens elsewhere, save it there as text or PDF."
_SMALLER = "Save its text with the program it comes from, or split it, and give that."

_REFUSALS = {
    "encrypted": ("is an encrypted PDF: it opens only with its password.", "Save a copy without a password first."),
    "protected": ("is an EPUB with copy protection (DRM): its text is encrypted.", "Give a book without protection."),
    "locked": ("is encrypted.", "Save a copy without a password first."),
    "scanned": ("is a scanned PDF: pictures of {}, without text.", _OCR),
    "unmapped": ("is a PDF whose fonts do not map to letters.", _OCR),
    "empty": ("holds no text.", "Give a document that has some text."),
    "damaged": ("is damaged or is not what it seems to be.", _AGAIN),
    "bomb": ("unpacks to far more than an honest document would.", _SMALLER),
    "too-large": ("holds more text or pages than can be read at once.", _SMALLER),
    "memory": ("takes too much memory to take apart.", _SMALLER),
    "time": ("took too long to take apart.", _SMALLER),
    "crash": ("made the program that takes it apart fail.", _AGAIN),
    "excel": ("is an Excel (XLSX) table, which is not read.", EXPORT),
    "powerpoint": ("is a PowerPoint (PPTX) file, which is not read.", "Export it as PDF first."),
    "pages": ("is a Pages, Numbers or Keynote file, which is not read.", "Export it as PDF, EPUB or DOCX first."),
    "zip": ("is a ZIP archive, which is not read.", UNPACK),
}


def refusal(name: str, refused: Refused) -> DocumentError:
    """The error to show for a file called `name`."""
    message, hint = _REFUSALS.get(refused.code, _REFUSALS["damaged"])
    return DocumentError(f"{name!r} {message.format(refused.detail)}", hint=hint)
