"""PDF: the lines of every page with where they stand, its outline as chapters, and what has no text named as such."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

import pypdfium2  # this module is imported in the child process alone
import pypdfium2.raw as pdfium

from longmamba_mlx.documents.formats.builder import Parsed, Refused, TextBuilder
from longmamba_mlx.documents.formats.lines import Line, Page
from longmamba_mlx.documents.formats.reflow import reflow
from longmamba_mlx.documents.places import Place, ordered
from longmamba_mlx.documents.sanitise import clean

MOST_PAGES = 50_000
_MOST_OUTLINE, _FEWEST_ENTRIES = 20_000, 2
_FEWEST_LETTERS = 8  # a page with fewer and a picture is a scan
_MOST_UNMAPPED = 0.3
_UNMAPPED = re.compile("[\ue000-\uf8ff\ufffd]")
_SHOWN_AS = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
    | {"\uf0b7": "•", "\uf0a7": "▪", "\uf0d8": "•", "\uf0fc": "✓"}  # of the fonts Symbol and Wingdings, in Word's lists
)
_HYPHENS = (0x02, 0xFFFE, 0xAD, 0x2D, 0x2010)  # the first two are PDFium's for one at a line's end
_LINE_ENDS = (10, 13, 0x02, 0xFFFE)
_SPACE = 32


def read(file: IO[bytes], encoding: str = "") -> Parsed:
    """A PDF's text as paragraphs, its pages and outline. Raises Refused for encrypted and scanned ones."""
    try:
        document = pypdfium2.PdfDocument(file)
    except pypdfium2.PdfiumError as error:
        raise Refused("encrypted" if "password" in str(error).lower() else "damaged") from None
    if len(document) > MOST_PAGES:
        raise Refused("too-large")
    pages = [_page(document, index) for index in range(len(document))]
    scans = _check_text(pages)
    out = TextBuilder()
    starts = reflow(pages, out)
    if scans:
        out.note(f"{scans} of {len(pages)} pages are pictures without text: they were not read.")
    parsed = out.finish()
    chapters = _chapters(document, parsed.text, starts)
    return replace(parsed, marks=ordered([*parsed.marks, *chapters]))


def _check_text(pages: list[Page]) -> int:
    """How many pages are pictures. Raises Refused when there is no text, or none that can be told."""
    letters = [sum(map(str.isalnum, (char for line in page.lines for char in line.text))) for page in pages]
    scans = sum(1 for page, count in zip(pages, letters, strict=True) if page.pictures and count < _FEWEST_LETTERS)
    if scans and scans == sum(1 for page, count in zip(pages, letters, strict=True) if page.pictures or count):
        raise Refused("scanned", f"{scans} page{'s' * (scans != 1)}")
    text = "".join(line.text for page in pages for line in page.lines)
    if len(_UNMAPPED.findall(text)) > _MOST_UNMAPPED * len("".join(text.split())):
        raise Refused("unmapped" if text.strip() else "empty")
    return scans


def _page(document: pypdfium2.PdfDocument, index: int) -> Page:
    """One page; a page that is broken is empty, the others can still be read."""
    try:
        page = document[index]
    except pypdfium2.PdfiumError:
        return Page([], False)
    try:
        found = range(min(pdfium.FPDFPage_CountObjects(page), 1000))
        kinds = (pdfium.FPDFPageObj_GetType(pdfium.FPDFPage_GetObject(page, number)) for number in found)
        pictures = any(kind in (pdfium.FPDF_PAGEOBJ_IMAGE, pdfium.FPDF_PAGEOBJ_FORM) for kind in kinds)
        return Page(list(_lines(page.get_textpage())), pictures)
    except pypdfium2.PdfiumError:
        return Page([], False)
    finally:
        page.close()


def _lines(textpage: pypdfium2.PdfTextPage) -> Iterator[Line]:
    """The page's lines, with the boxes of their first and last characters."""
    handle, unicode = textpage.raw, pdfium.FPDFText_GetUnicode
    codes = [unicode(handle, index) for index in range(pdfium.FPDFText_CountChars(handle))]
    start = 0
    for index, code in enumerate([*codes, 10]):
        if code not in _LINE_ENDS:
            continue
        # PDFium puts a hyphen that ends a line there instead of the line's end
        if line := _line(handle, codes, start, index + (code in _HYPHENS)):
            yield line
        start = index + 1
    textpage.close()


def _line(handle: object, codes: list[int], start: int, end: int) -> Line | None:
    while start < end and codes[start] in (9, 32, 160):
        start += 1
    while start < end and codes[end - 1] in (9, 32, 160):
        end -= 1
    if start == end:
        return None
    hyphen = end - start > 1 and codes[end - 1] in _HYPHENS and chr(codes[end - 2]).isalpha()
    text = "".join(map(_character, codes[start : end - hyphen]))
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    pdfium.FPDFText_GetCharBox(handle, end - 1, left, right, bottom, top)
    furthest = right.value
    pdfium.FPDFText_GetCharBox(handle, start, left, right, bottom, top)
    middle = next(index for index in range((start + end) // 2, end) if codes[index] != _SPACE)  # spaces have any size
    size = pdfium.FPDFText_GetFontSize(handle, middle)
    origin_x, origin_y = ctypes.c_double(), ctypes.c_double()
    pdfium.FPDFText_GetCharOrigin(handle, start, origin_x, origin_y)
    text = " ".join(clean(text.translate(_SHOWN_AS)).split())
    return Line(text, left.value, furthest, origin_y.value, max(size, 1.0), hyphen) if text else None


def _character(code: int) -> str:
    return chr(code) if 0x02 < code < 0xFFFE or 0xFFFF < code <= 0x10FFFF else ""


def _chapters(document: pypdfium2.PdfDocument, text: str, starts: list[int]) -> list[Place]:
    """The outline's entries, where their titles stand on their pages, else where these begin; [] for next to none."""
    found = []
    for number, bookmark in enumerate(document.get_toc(max_depth=6)):
        if number >= _MOST_OUTLINE:
            break
        title = " ".join(clean(bookmark.get_title() or "").split())[:200].strip()
        target = bookmark.get_dest()
        index = target.get_index() if target is not None else None
        if not title or index is None or not 0 <= index < len(starts):
            continue
        end = starts[index + 1] if index + 1 < len(starts) else len(text)
        words = re.compile(r"\s+".join(map(re.escape, title.split())), re.I)
        match = words.search(text, starts[index], end)
        found.append(Place(match.start() if match else starts[index], "chapter", title, 0, bookmark.level + 1))
    return found if len(found) >= _FEWEST_ENTRIES else []
