"""Reflow the lines of a PDF into paragraphs: join words and lines, keep rows and list items."""

from __future__ import annotations

import re
from itertools import pairwise

from longmamba_mlx.documents.formats.builder import TextBuilder
from longmamba_mlx.documents.formats.furniture import without_furniture
from longmamba_mlx.documents.formats.lines import Line, Page

_ENDS = re.compile(r"[.!?…:;][\"'”’»)\]]*$")
_BULLET = re.compile(r"[•◦▪‣·●○■□–*-]\s|\(?[0-9]{1,3}[.)]\s|\(?[a-zA-Z][.)]\s")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_NUMBERS = re.compile(r"\d[-–]$")  # "pages 10-" goes on in the next line
_CONJUNCTIONS = frozenset("and or nor to und oder bis sowie et ou y e o ed i a en of och og ja".split())
# First parts that keep their hyphen.
_PREFIXES = frozenset(
    "self well ex non half quasi vice north south east west "
    "twenty thirty forty fifty sixty seventy eighty ninety".split()
)
_WIDE_GAP = 1.35  # leadings between lines of different paragraphs
_LEADING, _LEAST_LEADING, _MOST_LEADING = 1.2, 0.5, 3.0  # font sizes
_INDENT = 0.8  # of the font size
_HANGING = 8.0  # of the font size: further in is another column or a centred line
_SHORT = 0.04  # of the width: a line that leaves more than this, and a word's room, ended on purpose
_WIDEST = 0.6  # of the font size: a character of a common face
_COLUMN = 30.0  # points: lines that begin nearer to each other are of one column


def reflow(pages: list[Page], out: TextBuilder) -> list[int]:
    """Write the pages' paragraphs to `out`, with a mark at each page's start; return these positions."""
    found = without_furniture(pages)
    if found.left_out:
        out.note(f"{found.left_out} running heads, feet and page numbers were left out; each text is read once.")
    flowing = [[line for line in lines if not line.alone] for lines in found.pages]
    writer = _Writer(out, _vocabulary(flowing), _leading(flowing), _Margins(flowing))
    starts = [writer.page(number, lines) for number, lines in enumerate(found.pages, 1)]
    writer.end()
    return starts


class _Writer:
    """Writes lines in order; lines that are `alone` wait for the end of the present paragraph."""

    def __init__(self, out: TextBuilder, words: frozenset[str], leading: float, margins: _Margins) -> None:
        self._out, self._words, self._leading, self._margins = out, words, leading, margins
        self._last: Line | None = None
        self._waiting: list[str] = []

    def page(self, number: int, lines: list[Line]) -> int:
        """Write a page; return its start position."""
        start: int | None = None
        for line in lines:
            if line.alone:
                self._waiting.append(line.text)
                continue
            self._part(line, new_page=start is None)
            if start is None:
                start = self._begin(number)
            self._out.write(line.text)
            self._last = line
        if start is None:
            self._end_paragraph()
            start = self._begin(number)
        return start

    def end(self) -> None:
        """End the last paragraph."""
        if self._last is not None and self._last.hyphen:
            self._out.write("-")
        self._end_paragraph()

    def _begin(self, number: int) -> int:
        self._out.mark("page", f"page {number}", number)
        return self._out.position

    def _end_paragraph(self) -> None:
        self._out.end_paragraph()
        for text in self._waiting:
            self._out.paragraph(text)
        self._waiting.clear()

    def _part(self, line: Line, *, new_page: bool) -> None:
        """Write the separator between the last line and this one; remove a hyphen that only broke a word."""
        before = self._last
        if before is None:
            self._end_paragraph()
            return
        between = _between(before, line, self._leading, self._margins, new_page=new_page)
        if between == "\n\n":
            self._out.write("-" if before.hyphen else "")
            self._end_paragraph()
        elif before.hyphen:
            self._out.write(_hyphen(before.text, line.text, self._words))
        else:
            self._out.write(
                "" if between == " " and _NUMBERS.search(before.text) and line.text[0].isdigit() else between
            )


def _hyphen(before: str, after: str, words: frozenset[str]) -> str:
    """Return what remains of a hyphen at a line's end: "" where it broke one word."""
    first, second = _WORD.findall(before.casefold()[-60:]), _WORD.match(after.casefold())
    if not first or not second or not after[0].islower():
        return "-"
    if second[0] in _CONJUNCTIONS:  # "pre- and post-war"
        return "- "
    whole, parts = first[-1] + second[0], f"{first[-1]}-{second[0]}"
    if whole in words:
        return ""
    compound = parts in words or first[-1] in _PREFIXES or len(first[-1]) == 1 or {first[-1], second[0]} <= words
    return "-" if compound else ""


def _vocabulary(pages: list[list[Line]]) -> frozenset[str]:
    """Collect the document's words, except those cut by a line's end."""
    found: set[str] = set()
    cut = False
    for line in (line for lines in pages for line in lines):
        words = _WORD.findall(line.text.casefold())
        found.update(words[int(cut and line.text[:1].isalpha()) : -1 if line.hyphen else None])
        cut = line.hyphen
    return frozenset(found)


class _Margins:
    """Right margins of each column, measured over the whole document: one page may show too little."""

    def __init__(self, bodies: list[list[Line]]) -> None:
        self._edges: dict[int, list[tuple[float, float]]] = {}
        for lines in bodies:
            for line in lines:
                self._edges.setdefault(_column(line), []).append((line.left, line.right))
        self._found: dict[int, tuple[float, float]] = {}

    def is_short(self, line: Line, following: str) -> bool:
        """Whether a line ended on purpose: the first word of the following line would have found room in it."""
        right, width = self._of(_column(line))
        word = following.split(" ", 1)[0]
        room = (len(word) + 1) * min((line.right - line.left) / len(line.text), _WIDEST * line.size)
        return line.right + room < right - _SHORT * width

    def _of(self, column: int) -> tuple[float, float]:
        """The right margin and the width; indented lines are of the same column."""
        if column not in self._found:
            edges = [edge for near in (column - 1, column, column + 1) for edge in self._edges.get(near, [])]
            rights = sorted(right for _, right in edges)
            right = rights[int(0.9 * (len(rights) - 1))]
            self._found[column] = right, max(right - min(left for left, _ in edges), 1.0)
        return self._found[column]


def _column(line: Line) -> int:
    return round(line.left / _COLUMN)


def _leading(bodies: list[list[Line]]) -> float:
    """The usual distance of lines within a paragraph, in font sizes. Of a whole document: a page may be all talk."""
    steps = (
        (one.base - other.base) / one.size
        for lines in bodies
        for one, other in pairwise(lines)
        if abs(one.size - other.size) < 0.5
    )
    usual = sorted(step for step in steps if _LEAST_LEADING < step < _MOST_LEADING)
    return usual[int(0.4 * len(usual))] if usual else _LEADING


def _between(before: Line, line: Line, leading: float, margins: _Margins, *, new_page: bool) -> str:
    """The separator between a line and the next: a space, a line end, or the end of a paragraph."""
    if before.row or line.row:
        return "\n" if before.row and line.row and not new_page else "\n\n"
    if before.hyphen and abs(before.size - line.size) < 0.5:
        return " "
    if abs(before.size - line.size) > 0.12 * max(before.size, line.size):
        return "\n\n"
    ends, is_short = bool(_ENDS.search(before.text)), margins.is_short(before, line.text)
    gap = before.base - line.base
    if new_page or gap < -0.5 * line.size:  # another page or column: the distance tells nothing
        if line.text[0].islower() or not (ends or is_short):
            return " "
        return "\n\n" if is_short else " "
    if gap > _WIDE_GAP * leading * line.size:
        return "\n\n"
    if _BULLET.match(line.text) and (ends or is_short or line.text[0] in "•◦▪‣●○■□"):
        return "\n"
    indent = (line.left - before.left) / line.size
    is_centred = abs(line.left + line.right - before.left - before.right) < line.size
    if _INDENT < indent < _HANGING and not is_centred and not _BULLET.match(before.text) and (ends or is_short):
        return "\n\n"
    if is_short:
        return "\n\n" if ends and not _BULLET.match(before.text) else "\n"
    return " "
