"""Read form field values, text boxes and comments of a PDF's page as lines in their place."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

import pypdfium2
import pypdfium2.raw as pdfium

from longmamba_mlx.documents.formats.asides import comment
from longmamba_mlx.documents.formats.lines import Line
from longmamba_mlx.documents.sanitise import clean

_MOST = 5000  # annotations of a page
_LONGEST = 1 << 20  # bytes of one
_HIDDEN = 0x02 | 0x20  # flags: hidden, not to be viewed
_PASSWORD = 1 << 13
_SIZE, _LEADING = 10.0, 1.2  # of a written line, in points and font sizes
_VALUES = (pdfium.FPDF_FORMFIELD_TEXTFIELD, pdfium.FPDF_FORMFIELD_COMBOBOX, pdfium.FPDF_FORMFIELD_LISTBOX)
_BUTTONS = (pdfium.FPDF_FORMFIELD_CHECKBOX, pdfium.FPDF_FORMFIELD_RADIOBUTTON)
_SILENT = (pdfium.FPDF_ANNOT_LINK, pdfium.FPDF_ANNOT_POPUP, pdfium.FPDF_ANNOT_WIDGET, pdfium.FPDF_ANNOT_FREETEXT)


def with_annotations(lines: list[Line], page: pypdfium2.PdfPage, form: object | None) -> list[Line]:
    """Insert annotations into a page's lines, each after the line beside or above it."""
    for number in range(min(pdfium.FPDFPage_GetAnnotCount(page), _MOST)):
        annotation = pdfium.FPDFPage_GetAnnot(page, number)
        if not annotation:
            continue
        try:
            for line in _lines(annotation, form):
                lines.insert(_place(lines, line), line)
        finally:
            pdfium.FPDFPage_CloseAnnot(annotation)
    return lines


def _lines(annotation: object, form: object | None) -> Iterator[Line]:
    kind, flags = pdfium.FPDFAnnot_GetSubtype(annotation), pdfium.FPDFAnnot_GetFlags(annotation)
    box = pdfium.FS_RECTF()
    if flags & _HIDDEN or not pdfium.FPDFAnnot_GetRect(annotation, box):
        return
    left, right, top = min(box.left, box.right), max(box.left, box.right), max(box.top, box.bottom)
    height = abs(box.top - box.bottom)
    alone = False
    if kind == pdfium.FPDF_ANNOT_WIDGET:
        text = _value(annotation, form)
    elif kind == pdfium.FPDF_ANNOT_FREETEXT:
        text = _string(annotation, b"Contents")
    elif kind not in _SILENT:
        text, alone = comment(_string(annotation, b"Contents"), _string(annotation, b"T")), True
    else:
        return
    written = [line for line in (" ".join(part.split()) for part in text.split("\n")) if line]
    size = max(min(_SIZE, height * 0.7), 1.0)
    base = top - (height + 0.7 * size) / 2 if len(written) == 1 and not alone else top - size
    for index, line in enumerate(written):
        yield Line(line, left, right, base - index * _LEADING * size, size, alone=alone)


def _value(annotation: object, form: object | None) -> str:
    """Return a form field's value; "☑" for a checked button."""
    if form is None:
        return ""
    kind = pdfium.FPDFAnnot_GetFormFieldType(form, annotation)
    if kind in _BUTTONS:
        return "☑" if pdfium.FPDFAnnot_IsChecked(form, annotation) else ""
    if kind not in _VALUES or pdfium.FPDFAnnot_GetFormFieldFlags(form, annotation) & _PASSWORD:
        return ""
    return _wide(lambda buffer, size: pdfium.FPDFAnnot_GetFormFieldValue(form, annotation, buffer, size))


def _string(annotation: object, key: bytes) -> str:
    return _wide(lambda buffer, size: pdfium.FPDFAnnot_GetStringValue(annotation, key, buffer, size))


def _wide(get: Callable[[object, int], int]) -> str:
    """Call a PDFium getter that writes UTF-16."""
    size = min(get(None, 0), _LONGEST)
    if size <= 2:
        return ""
    buffer = ctypes.create_string_buffer(size)
    get(ctypes.cast(buffer, ctypes.POINTER(pdfium.FPDF_WCHAR)), size)
    return clean(buffer.raw[: size - 2].decode("utf-16-le", "replace"))


def _place(lines: list[Line], line: Line) -> int:
    """The position of a line: after the nearest one on its left, else after the last one above it, else first."""
    beside = [
        (line.left - other.right, index)
        for index, other in enumerate(lines)
        if abs(other.base - line.base) < 0.8 * max(other.size, line.size) and other.left <= line.left
    ]
    if beside:
        return min(beside)[1] + 1
    above = [(other.base - line.base, index) for index, other in enumerate(lines) if other.base >= line.base]
    return min(above, key=lambda item: (round(item[0], 1), -item[1]))[1] + 1 if above else 0
