"""What a file is, told by its first bytes: a name may lie, and bytes read as text become nonsense answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

HEAD = 4096  # bytes that `known_format` wants to see

_READ = "Give a text, Markdown, HTML, PDF, EPUB or DOCX file."
_TEXTUTIL = "Convert it to text first (on a Mac: textutil -convert txt FILE)."
_PREVIEW = "Save it as PDF with text first, for example with Preview."
_EPUB = "Convert it to EPUB first, for example with Calibre: ebook-convert FILE book.epub."
_UNPACK = "Unpack it and give the files inside."
_OFFICE = "Export it as text or CSV first."


@dataclass(frozen=True, slots=True)
class Format:
    """A format with a name like "a PDF"; `reader` parses it in a child process, "" where it is not read."""

    name: str
    hint: str
    reader: Literal["", "pdf", "zip", "html"] = ""


_PDF = Format("a PDF", "", "pdf")
_ZIP = Format("a ZIP archive", "", "zip")  # EPUB and DOCX too
_HTML = Format("a web page (HTML)", "", "html")

# (offset, bytes, what it is, hint). Longer and more telling signatures come first.
_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"%!PS", "a PostScript file", _PREVIEW),
    (0, b"{\\rtf", "a rich text (RTF) document", _TEXTUTIL),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document (DOC, XLS or PPT)", _TEXTUTIL),
    (60, b"BOOKMOBI", "a Kindle (MOBI) book", _EPUB),
    (0, b"AT&TFORM", "a DjVu document", _PREVIEW),
    (0, b"bplist00", "a binary property list or web archive", _TEXTUTIL),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG picture", _READ),
    (0, b"\xff\xd8\xff", "a JPEG picture", _READ),
    (0, b"GIF87a", "a GIF picture", _READ),
    (0, b"GIF89a", "a GIF picture", _READ),
    (0, b"II*\x00", "a TIFF picture", _READ),
    (0, b"MM\x00*", "a TIFF picture", _READ),
    (8, b"WEBP", "a WebP picture", _READ),
    (8, b"WAVE", "a sound file", _READ),
    (4, b"ftyp", "a film, sound or HEIC picture", _READ),
    (0, b"ID3\x02", "a sound file", _READ),
    (0, b"ID3\x03", "a sound file", _READ),
    (0, b"ID3\x04", "a sound file", _READ),
    (0, b"OggS\x00", "a sound file", _READ),
    (0, b"fLaC\x00", "a sound file", _READ),
    (0, b"\x1a\x45\xdf\xa3", "a film", _READ),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"BZh91AY&SY", "a bzip2 archive", _UNPACK),
    (0, b"\xfd7zXZ\x00", "an xz archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"SQLite format 3\x00", "an SQLite database", _OFFICE),
    (0, b"PAR1", "a Parquet table", _OFFICE),
    (0, b"\x93NUMPY", "a NumPy array", _OFFICE),
    (0, b"GGUF", "a GGUF model", _READ),
    (0, b"\x7fELF", "a program", _READ),
    (0, b"\xcf\xfa\xed\xfe", "a program", _READ),
    (0, b"\xce\xfa\xed\xfe", "a program", _READ),
    (0, b"\xca\xfe\xba\xbe", "a program", _READ),
    (0, b"MZ\x90\x00", "a program", _READ),
)
_HTML_START = re.compile(
    rb"\s*(<\?xml[^>]{0,200}>\s*)?(<!--.{0,500}?-->\s*)?<(!doctype\s+html|html[\s>]|head[\s>]|body[\s>])", re.I | re.S
)
_PDF_WITHIN = 1024  # viewers accept a PDF that begins a little later


def known_format(head: bytes) -> Format | None:
    """The first bytes of a file -> its format; None for what may be text."""
    if head.startswith(b"%PDF-") or (b"\n%PDF-1." in head[:_PDF_WITHIN] and b"\x00" in head):
        return _PDF
    for offset, signature, name, hint in _SIGNATURES:
        if head.startswith(signature, offset):
            return Format(name, hint)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _ZIP
    if _HTML_START.match(head.removeprefix(b"\xef\xbb\xbf")) or _is_wide_html(head):
        return _HTML
    return None


def _is_wide_html(head: bytes) -> bool:
    """HTML in UTF-16 has a mark, and a zero byte in every character."""
    return head.startswith((b"\xff\xfe", b"\xfe\xff")) and bool(_HTML_START.match(head[2:].replace(b"\x00", b"")))
