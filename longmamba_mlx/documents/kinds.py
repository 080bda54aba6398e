"""Recognise a file's format by its first bytes and its name.

One table: a format that is read names its module in `formats/`, all others a hint what to do with them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath

HEAD = 1 << 16  # bytes that `known_format` wants to see

GIVE = "Give a text, Markdown, HTML, PDF, EPUB, DOCX, ODT, RTF, FB2 or mail file."
TEXTUTIL = "Convert it to text first (on a Mac: textutil -convert txt FILE)."
PREVIEW = "Save it as PDF with text first, for example with Preview."
TO_EPUB = "Convert it to EPUB first, for example with Calibre: ebook-convert FILE book.epub."
UNPACK = "Unpack it and give the files inside."
EXPORT = "Export it as text or CSV first."

_PDF_WITHIN = 1024  # bytes: viewers accept a PDF that begins a little later
_MAIL_HEADERS = (
    rb"from|to|cc|bcc|subject|date|sender|received|return-path|reply-to|message-id|mime-version|content-type|"
    rb"content-transfer-encoding|delivered-to|in-reply-to|references|dkim-signature|authentication-results|list-id|"
    rb"x-[\w-]+|arc-[\w-]+|thread-[\w-]+|importance|envelope-to|user-agent|organization|status|lines"
)
_MARKUP_NAMES = (".html", ".htm", ".xhtml", ".xht", ".shtml")
_PACKAGE_NAMES = (".docx", ".epub", ".odt")  # are no text, whatever stands in front
_PLAIN_NAMES = (".md", ".markdown", ".mdx", ".rst", ".org", ".adoc", ".tex")  # begin with a tag now and then
_PRINTABLE = re.compile(rb"[\t\n\r -~]*")
_BINARY = re.compile(rb"[\x00-\x07\x0e-\x1a\x1c-\x1f]")

_PDF = re.compile(rb"%PDF-\d\.\d *(?:[\r\n%]|$)")
_LATE_PDF = re.compile(rb"[\r\n]%PDF-1\.")
_PDF_OBJECT = re.compile(rb"(?:^|[\r\n])\s*\d+ \d+ obj\b")
_POSTSCRIPT = re.compile(rb"%!PS(?:-Adobe-\d|[\r\n])")
_RTF = re.compile(rb"\s*\{\\rtf\d?[\\{}\s]")
_FICTION_BOOK = re.compile(rb"<(?:\w+:)?FictionBook[\s>]")
_FLAT_ODF = re.compile(rb"<office:document[\s>]")
_PROLOGUE = re.compile(rb"(?:\s+|<\?[^>]*>|<!--.*?-->)*", re.S)  # what may stand before a page's first tag
_PAGE = re.compile(rb"<(?:!doctype\s+html|(?:html|head|body|meta|title|base|link)[\s/>])", re.I)
_FRAGMENT = re.compile(
    rb"<(?:p|div|table|center|font|style|script|article|section|main|header|nav|ul|ol|dl|span|b|i|a|noscript)[\s/>]",
    re.I,
)
_TAG = re.compile(rb"</?(?:[a-z][a-z0-9]{0,10})(?:\s[^<>]*)?/?>", re.I)
_MARKDOWN_LINE = re.compile(rb"^(?:#{1,6} |```|~~~|[*+-] |\d+\. |\[[^\]\n]+\]: |=+\s*$|!?\[[^\]\n]*\]\()", re.M)
_ENVELOPE = re.compile(rb"From \S{1,200} [^\r\n]{0,200}\d{4} *\r?\n(?=[\w-]{1,70}:)")
_EMLX = re.compile(rb"\d{1,12} *\r?\n(?=[\w-]{1,70}:)")
_HEADER = re.compile(rb"([!-9;-~]{1,70}):(?:[^\n]*)\n(?:[ \t][^\n]*\n)*")
_KNOWN_HEADER = re.compile(rb"(?:" + _MAIL_HEADERS + rb")", re.I)


@dataclass(frozen=True, slots=True)
class Format:
    """A format with a name like "a PDF"; `reader` is its module in `formats/`, "" where it is not read."""

    name: str
    hint: str
    reader: str = ""


@dataclass(frozen=True, slots=True)
class _Head:
    """The first bytes of a file and its name's ending; `text` is without a mark, in one byte a character."""

    data: bytes
    text: bytes
    suffix: str

    @property
    def is_binary(self) -> bool:
        return bool(_BINARY.search(self.data))


def _is_pdf(head: _Head) -> bool:
    if _PDF.match(head.data) or (_LATE_PDF.search(head.data[:_PDF_WITHIN]) and head.is_binary):
        return True
    # Its first line is damaged: it is no text all the same.
    return (head.suffix == ".pdf" or head.data.startswith(b"%PDF-")) and bool(_PDF_OBJECT.search(head.data))


def _is_zip(head: _Head) -> bool:
    begins = head.data.startswith((b"PK\x03\x04", b"PK\x05\x06"))
    return begins or (head.suffix in _PACKAGE_NAMES and b"PK\x03\x04" in head.data)


def _is_mail(head: _Head) -> bool:
    """Whether a file starts with mail headers; without a mail's file name, technical ones are required."""
    named = head.suffix in (".eml", ".mht", ".mhtml", ".emlx", ".mbox")
    start = _ENVELOPE.match(head.text) or _EMLX.match(head.text)
    position = start.end() if start else 0
    known: set[bytes] = set()
    total = 0
    while match := _HEADER.match(head.text, position):
        total += 1
        if _KNOWN_HEADER.fullmatch(match[1]):
            known.add(match[1].lower())
        position = match.end()
    ended = head.text[position : position + 2] in (b"\r\n", b"") or head.text.startswith(b"\n", position)
    if not (ended or len(head.data) >= HEAD) or not total:
        return False
    if named or (start and _ENVELOPE.match(head.text)):
        return bool(known)
    technical = known - {b"from", b"to", b"cc", b"bcc", b"subject", b"date", b"lines", b"status", b"references"}
    return len(known) >= 3 and bool(technical) and len(known) * 2 >= total


def _is_html(head: _Head) -> bool:
    start = _PROLOGUE.match(head.text)
    position = start.end() if start else 0
    if _PAGE.match(head.text, position):
        return head.suffix not in _PLAIN_NAMES or b"<body" in head.text.lower() or b"<html" in head.text.lower()
    if head.suffix in _MARKUP_NAMES:
        return bool(_TAG.search(head.text)) or head.text.startswith(b"<!--", position)
    if head.suffix in _PLAIN_NAMES or not _FRAGMENT.match(head.text, position):
        return False
    return len(_TAG.findall(head.text)) > 1 and not _MARKDOWN_LINE.search(head.text)


# Formats that are read, each with how it is told. The first that fits counts.
_READ: tuple[tuple[Callable[[_Head], object], Format], ...] = (
    (_is_pdf, Format("a PDF", "", "pdf")),
    (_is_zip, Format("a ZIP archive", "", "packages")),  # EPUB, DOCX and ODT too
    (lambda head: _RTF.match(head.text), Format("a rich text (RTF) document", "", "rtf")),
    (lambda head: _FICTION_BOOK.search(head.text[:2048]), Format("a FictionBook", "", "fictionbook")),
    (lambda head: _FLAT_ODF.search(head.text[:2048]), Format("a flat OpenDocument file", "", "opendocument")),
    (_is_mail, Format("a mail", "", "mail")),
    (_is_html, Format("a web page (HTML)", "", "markup")),
)

# Formats that are not: offset, first bytes, what it is, hint. Longer and more telling ones come first.
_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document (DOC, XLS or PPT)", TEXTUTIL),
    (60, b"BOOKMOBI", "a Kindle (MOBI) book", TO_EPUB),
    (60, b"TEXtREAd", "a Palm (PDB) book", TO_EPUB),
    (0, b"ITOLITLS", "a Microsoft Reader (LIT) book", TO_EPUB),
    (0, b"ITSF", "a compiled help (CHM) file", TO_EPUB),
    (0, b"AT&TFORM", "a DjVu document", PREVIEW),
    (0, b"bplist00", "a binary property list or web archive", TEXTUTIL),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG picture", GIVE),
    (0, b"\xff\xd8\xff", "a JPEG picture", GIVE),
    (0, b"GIF87a", "a GIF picture", GIVE),
    (0, b"GIF89a", "a GIF picture", GIVE),
    (0, b"II*\x00", "a TIFF picture", GIVE),
    (0, b"MM\x00*", "a TIFF picture", GIVE),
    (8, b"WEBP", "a WebP picture", GIVE),
    (8, b"WAVE", "a sound file", GIVE),
    (8, b"AVI ", "a film", GIVE),
    (4, b"ftyp", "a film, sound or HEIC picture", GIVE),
    (0, b"ID3", "a sound file", GIVE),
    (0, b"OggS\x00", "a sound file", GIVE),
    (0, b"fLaC\x00", "a sound file", GIVE),
    (0, b"\x1a\x45\xdf\xa3", "a film", GIVE),
    (0, b"\x1f\x8b", "a gzip archive", UNPACK),
    (0, b"BZh91AY&SY", "a bzip2 archive", UNPACK),
    (0, b"\xfd7zXZ\x00", "an xz archive", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (257, b"ustar", "a tar archive", UNPACK),
    (0, b"SQLite format 3\x00", "an SQLite database", EXPORT),
    (0, b"PAR1", "a Parquet table", EXPORT),
    (0, b"\x93NUMPY", "a NumPy array", EXPORT),
    (0, b"GGUF", "a GGUF model", GIVE),
    (0, b"\x7fELF", "a program", GIVE),
    (0, b"\xcf\xfa\xed\xfe", "a program", GIVE),
    (0, b"\xce\xfa\xed\xfe", "a program", GIVE),
    (0, b"\xca\xfe\xba\xbe", "a program", GIVE),
    (0, b"MZ\x90\x00", "a program", GIVE),
)


def known_format(data: bytes, name: str = "") -> Format | None:
    """Return the format of a file from its first bytes and its name; None for what may be text."""
    head = _Head(data, _narrow(data), PurePath(name).suffix.lower())
    if _POSTSCRIPT.match(data):
        return Format("a PostScript file", PREVIEW)
    for offset, signature, what, hint in _SIGNATURES:
        # Words may begin as a file does ("GIF89a is a format"): only bytes that no text holds tell.
        if data.startswith(signature, offset) and (head.is_binary or not _PRINTABLE.fullmatch(signature)):
            return Format(what, hint)
    return next((found for fits, found in _READ if fits(head)), None)


def _narrow(data: bytes) -> bytes:
    """Without a byte order mark, and UTF-16's and UTF-32's ASCII characters as one byte each."""
    text = data.removeprefix(b"\xef\xbb\xbf")
    if text.startswith((b"\xff\xfe", b"\xfe\xff")) or text[:400].count(0) * 3 > len(text[:400]):
        text = text.replace(b"\x00", b"").lstrip(b"\xff\xfe")
    return text
