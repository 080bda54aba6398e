"""Build pieces of lines from the positioned characters that PDFium reports for a page."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator

import pypdfium2
import pypdfium2.raw as pdfium

from longmamba_mlx.documents.formats.lines import Line, marked
from longmamba_mlx.documents.sanitise import clean

_SHOWN_AS = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
    | {"\uf0b7": "•", "\uf0a7": "▪", "\uf0d8": "•", "\uf0fc": "✓"}  # of the fonts Symbol and Wingdings, in Word's lists
)
_UNMAPPED = re.compile("[\x01\x03-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ue000-\uf8ff\ufffd]")
_HYPHENS = (0x02, 0xFFFE, 0xAD, 0x2D, 0x2010)  # the first two are PDFium's for one at a line's end
_LINE_ENDS = (10, 13, 0x02, 0xFFFE)
_SPACES = (9, 32, 160)
_WIDE = 1.2  # of the font size: a gap between cells
_USUAL_WIDTH = 0.46  # of the font size: a line with no wider characters holds no wide gap
_RAISED = 0.15  # of the font size
# Only these are asked for, as that takes time: digits, and single letters at a word's end.
_MAY_BE_RAISED = re.compile(r"(?<=\S)(?:\d+|[^\W\d_](?!\w))")
_STEEP = 0.3  # a line that rises more than this is turned: nothing in it is raised


def codes_of(textpage: pypdfium2.PdfTextPage) -> list[int]:
    """The page's characters as UTF-16 codes."""
    handle = textpage.raw
    return [pdfium.FPDFText_GetUnicode(handle, index) for index in range(pdfium.FPDFText_CountChars(handle))]


def unmapped(codes: list[int]) -> int:
    """Count the characters whose font has no character map."""
    return len(_UNMAPPED.findall("".join(map(chr, codes)).translate(_SHOWN_AS)))


def pieces(textpage: pypdfium2.PdfTextPage, codes: list[int]) -> Iterator[Line]:
    """The page's lines, in pieces where a wide gap parts them."""
    characters = _Characters(textpage.raw, codes)
    start = 0
    for index, code in enumerate([*codes, 10]):
        if code in _LINE_ENDS:
            # PDFium puts a hyphen that ends a line there instead of the line's end
            yield from characters.line(start, index + (code in _HYPHENS))
            start = index + 1


class _Characters:
    def __init__(self, handle: object, codes: list[int]) -> None:
        self._handle, self._codes = handle, codes
        self._numbers = tuple(ctypes.c_double() for _ in range(4))

    def line(self, start: int, end: int) -> Iterator[Line]:
        start, end = self._trimmed(start, end)
        if start == end:
            return
        left, _ = self._edges(start)
        _, right = self._edges(end - 1)
        size = self._size(start, end)
        cut = start
        if right - left > size * (_USUAL_WIDTH * (end - start) + _WIDE):
            for gap in self._gaps(start, end, size):
                last = self._trimmed(cut, gap)[1]
                yield from self._piece(cut, last, size, left, self._edges(last - 1)[1])
                cut, left = gap, self._edges(gap)[0]
        yield from self._piece(cut, end, size, left, right)

    def _gaps(self, start: int, end: int, size: float) -> Iterator[int]:
        """Yield the indices of characters with a wide gap before them."""
        last = start
        for index in range(start + 1, end):
            if self._codes[index] in _SPACES:
                continue
            if index - last > 1 and self._edges(index)[0] - self._edges(last)[1] > _WIDE * size:
                yield index
            last = index

    def _piece(self, start: int, end: int, size: float, left: float, right: float) -> Iterator[Line]:
        codes = self._codes
        hyphen = end - start > 1 and codes[end - 1] in _HYPHENS and chr(codes[end - 2]).isalpha()
        origin = self._origin(start)
        text = self._text(start, end - hyphen, origin, size)
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")  # PDFium tells halves
        text = " ".join(clean(text.translate(_SHOWN_AS)).split())
        if text:
            yield Line(text, left, right, origin[1], size, hyphen)

    def _text(self, start: int, end: int, origin: tuple[float, float], size: float) -> str:
        """The characters, raised ones marked as such."""
        text = "".join(map(_character, self._codes[start:end]))
        if len(text) != end - start or not _MAY_BE_RAISED.search(text):
            return text
        (first, base), (last, high) = origin, self._origin(end - 1)
        if abs(high - base) > _STEEP * max(abs(last - first), size):
            return text
        found = ""
        done = 0
        for match in _MAY_BE_RAISED.finditer(text):
            at = next((at for at in range(*match.span()) if self._is_raised(start + at, base, size)), None)
            if at is not None:
                found += text[done:at]
                found += marked(found, text[at : match.end()])
                done = match.end()
        return found + text[done:]

    def _is_raised(self, index: int, base: float, size: float) -> bool:
        return self._origin(index)[1] - base > _RAISED * size

    def _trimmed(self, start: int, end: int) -> tuple[int, int]:
        while start < end and self._codes[start] in _SPACES:
            start += 1
        while start < end and self._codes[end - 1] in _SPACES:
            end -= 1
        return start, end

    def _edges(self, index: int) -> tuple[float, float]:
        left, right, bottom, top = self._numbers
        pdfium.FPDFText_GetCharBox(self._handle, index, left, right, bottom, top)
        return left.value, right.value

    def _origin(self, index: int) -> tuple[float, float]:
        x, y, *_ = self._numbers
        pdfium.FPDFText_GetCharOrigin(self._handle, index, x, y)
        return x.value, y.value

    def _size(self, start: int, end: int) -> float:
        middle = next(index for index in range((start + end) // 2, end) if self._codes[index] not in _SPACES)
        return max(float(pdfium.FPDFText_GetFontSize(self._handle, middle)), 1.0)


def _character(code: int) -> str:
    return chr(code) if 0x02 < code < 0xFFFE or 0xFFFF < code <= 0x10FFFF else ""
