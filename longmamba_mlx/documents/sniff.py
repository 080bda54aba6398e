"""What a file is, told by its first bytes: a name may lie, and bytes read as text become nonsense answers."""

from __future__ import annotations

import re

HEAD = 4096  # bytes that `known_format` wants to see

_TEXTUTIL = "Convert it to text first (on a Mac: textutil -convert txt FILE)."
_PDF = "Save its text first: pdftotext FILE, or open it in Preview and copy all."
_EPUB = "Convert it to text first, for example with Calibre: ebook-convert FILE book.txt."
_UNPACK = "Unpack it and give the text files inside."
_OFFICE = "Export it as text or CSV first."
_NONE = "Give a text or Markdown file."

# (offset, bytes, what it is, hint). Longer and more telling signatures come first.
_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"%PDF-", "a PDF", _PDF),
    (0, b"%!PS", "a PostScript file", _PDF),
    (0, b"{\\rtf", "a rich text (RTF) document", _TEXTUTIL),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document (DOC, XLS or PPT)", _TEXTUTIL),
    (60, b"BOOKMOBI", "a Kindle (MOBI) book", _EPUB),
    (0, b"AT&TFORM", "a DjVu document", _PDF),
    (0, b"bplist00", "a binary property list or web archive", _TEXTUTIL),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG picture", _NONE),
    (0, b"\xff\xd8\xff", "a JPEG picture", _NONE),
    (0, b"GIF87a", "a GIF picture", _NONE),
    (0, b"GIF89a", "a GIF picture", _NONE),
    (0, b"II*\x00", "a TIFF picture", _NONE),
    (0, b"MM\x00*", "a TIFF picture", _NONE),
    (8, b"WEBP", "a WebP picture", _NONE),
    (8, b"WAVE", "a sound file", _NONE),
    (4, b"ftyp", "a film, sound or HEIC picture", _NONE),
    (0, b"ID3\x02", "a sound file", _NONE),
    (0, b"ID3\x03", "a sound file", _NONE),
    (0, b"ID3\x04", "a sound file", _NONE),
    (0, b"OggS\x00", "a sound file", _NONE),
    (0, b"fLaC\x00", "a sound file", _NONE),
    (0, b"\x1a\x45\xdf\xa3", "a film", _NONE),
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
    (0, b"GGUF", "a GGUF model", _NONE),
    (0, b"\x7fELF", "a program", _NONE),
    (0, b"\xcf\xfa\xed\xfe", "a program", _NONE),
    (0, b"\xce\xfa\xed\xfe", "a program", _NONE),
    (0, b"\xca\xfe\xba\xbe", "a program", _NONE),
    (0, b"MZ\x90\x00", "a program", _NONE),
)
_ZIP_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"application/epub+zip", "an EPUB book", _EPUB),
    (b"application/vnd.oasis.opendocument", "an OpenDocument file", _TEXTUTIL),
    (b"word/", "a Word (DOCX) document", _TEXTUTIL),
    (b"xl/", "an Excel (XLSX) table", _OFFICE),
    (b"ppt/", "a PowerPoint (PPTX) file", _OFFICE),
    (b"[Content_Types].xml", "an Office document (DOCX, XLSX or PPTX)", _TEXTUTIL),
    (b"Index/Document.iwa", "a Pages, Numbers or Keynote file", _OFFICE),
)
_HTML = re.compile(rb"\s*(<\?xml[^>]{0,200}>\s*)?(<!--.{0,500}?-->\s*)?<(!doctype\s+html|html[\s>])", re.I | re.S)


def known_format(head: bytes) -> tuple[str, str] | None:
    """The first bytes of a file -> ("a PDF", what to do about it); None for what may be text."""
    for offset, signature, kind, hint in _SIGNATURES:
        if head.startswith(signature, offset):
            return kind, hint
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return next(((kind, hint) for mark, kind, hint in _ZIP_KINDS if mark in head), ("a ZIP archive", _UNPACK))
    if _HTML.match(head.removeprefix(b"\xef\xbb\xbf")):
        return "a web page (HTML)", _TEXTUTIL
    return None
