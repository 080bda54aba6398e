"""Read PDF: the text of every page, and its outline as chapters; pages without text are noted."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import replace
from typing import IO

import pypdfium2  # this module is imported in the child process alone
import pypdfium2.raw as pdfium

from longmamba_mlx.documents.formats.builder import Parsed, Refused, TextBuilder
from longmamba_mlx.documents.formats.lines import Page
from longmamba_mlx.documents.formats.pdf_annotations import with_annotations
from longmamba_mlx.documents.formats.pdf_text import codes_of, pieces, unmapped
from longmamba_mlx.documents.formats.reflow import reflow
from longmamba_mlx.documents.places import Place, ordered
from longmamba_mlx.documents.sanitise import clean

MOST_PAGES = 50_000
_MANY_PAGES, _LEAST_BYTES = 2000, 12  # a page of its own takes more of a file
_MOST_OUTLINE, _FEWEST_ENTRIES = 20_000, 2
_FEWEST_LETTERS = 8  # a page with fewer and a picture is a scan
_MOST_UNMAPPED, _GARBLED = 0.3, 0.02  # of the characters: refused, and told
_SPACE = 32


def read(file: IO[bytes], encoding: str = "") -> Parsed:
    """A PDF's text as paragraphs, its pages and outline. Raises Refused for encrypted and scanned ones."""
    try:
        document = pypdfium2.PdfDocument(file)
    except pypdfium2.PdfiumError as error:
        raise Refused("encrypted" if "password" in str(error).lower() else "damaged") from None
    with contextlib.suppress(pypdfium2.PdfiumError):  # a form that is broken is read as it looks
        document.init_forms()
    if len(document) > MOST_PAGES:
        raise Refused("too-large")
    if len(document) > _MANY_PAGES and file.seek(0, os.SEEK_END) < _LEAST_BYTES * len(document):
        raise Refused("bomb")  # the same page again and again
    pages = [_page(document, index) for index in range(len(document))]
    scans = _check_text(pages)
    out = TextBuilder()
    starts = reflow(pages, out)
    if scans:
        out.note(f"{scans} of {len(pages)} pages are pictures without text: they were not read.")
    garbled = sum(page.unmapped > _GARBLED * max(page.characters, 1) for page in pages)
    if garbled:
        out.note(f"Fonts on {garbled} of {len(pages)} pages do not map to letters: words are wrong or missing.")
    parsed = out.finish()
    chapters = _chapters(document, parsed.text, starts)
    return replace(parsed, marks=ordered([*parsed.marks, *chapters]))


def _check_text(pages: list[Page]) -> int:
    """Count the pages that are pictures. Raises Refused for a scan, or fonts without a character map."""
    letters = [sum(map(str.isalnum, (char for line in page.lines for char in line.text))) for page in pages]
    scans = sum(1 for page, count in zip(pages, letters, strict=True) if page.pictures and count < _FEWEST_LETTERS)
    if scans and scans == sum(1 for page, count in zip(pages, letters, strict=True) if page.pictures or count):
        raise Refused("scanned", f"{scans} page{'s' * (scans != 1)}")
    if sum(page.unmapped for page in pages) > _MOST_UNMAPPED * sum(page.characters for page in pages):
        raise Refused("unmapped")
    return scans


def _page(document: pypdfium2.PdfDocument, index: int) -> Page:
    """Read a page; a broken page is empty."""
    try:
        page = document[index]
    except pypdfium2.PdfiumError:
        return Page([], False)
    try:
        found = range(min(pdfium.FPDFPage_CountObjects(page), 1000))
        kinds = (pdfium.FPDFPageObj_GetType(pdfium.FPDFPage_GetObject(page, number)) for number in found)
        pictures = any(kind in (pdfium.FPDF_PAGEOBJ_IMAGE, pdfium.FPDF_PAGEOBJ_FORM) for kind in kinds)
        form = document.formenv.raw if document.formenv else None
        textpage = page.get_textpage()
        codes = codes_of(textpage)
        lines = with_annotations(list(pieces(textpage, codes)), page, form)
        textpage.close()
        return Page(lines, pictures, sum(code > _SPACE for code in codes), unmapped(codes))
    except pypdfium2.PdfiumError:
        return Page([], False)
    finally:
        page.close()


def _chapters(document: pypdfium2.PdfDocument, text: str, starts: list[int]) -> list[Place]:
    """The outline's entries, at their titles if the page has them, else at the page's start; [] for next to none."""
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
