"""Lines of a PDF -> paragraphs as they were before they were set: words joined, page furniture left out."""

from __future__ import annotations

import re
from itertools import pairwise

from longmamba_mlx.documents.formats.builder import TextBuilder
from longmamba_mlx.documents.formats.lines import Line, Page, body

_ENDS = re.compile(r"[.!?…:;][\"'”’»)\]]*$")
_BULLET = re.compile(r"[•◦▪‣·●○■□–*-]\s|\(?[0-9]{1,3}[.)]\s|\(?[a-zA-Z][.)]\s")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_WIDE_GAP = 1.35  # leadings between lines of different paragraphs
_LEADING, _LEAST_LEADING, _MOST_LEADING = 1.2, 0.5, 3.0  # font sizes
_INDENT = 0.8  # of the font size
_HANGING = 8.0  # of the font size: further in is another column or a centred line
_SHORT = 0.04  # of the width: a line that leaves more than this, and a word's room, ended on purpose
_WIDEST = 0.6  # of the font size: a character of a common face
_COLUMN = 30.0  # points: lines that begin nearer to each other are of one column


def reflow(pages: list[Page], out: TextBuilder) -> list[int]:
    """Write the pages' paragraphs to `out`, with a mark where each page begins; returns these positions."""
    bodies = body(pages)
    words, leading, margins = _vocabulary(bodies), _leading(bodies), _Margins(bodies)
    starts: list[int] = []
    last: Line | None = None
    for number, lines in enumerate(bodies, 1):
        for index, line in enumerate(lines):
            if last is not None:
                _join(out, last, line, _between(last, line, leading, margins, new_page=index == 0), words)
            if index == 0:
                starts.append(out.position)
                out.mark("page", f"page {number}", number)
            out.write(line.text)
            last = line
        if not lines:
            starts.append(out.position)
            out.mark("page", f"page {number}", number)
    out.end_paragraph()
    return starts


def _join(out: TextBuilder, before: Line, line: Line, between: str, words: frozenset[str]) -> None:
    """Write what stands between two lines; a hyphen that only broke a word goes."""
    if between == "\n\n":
        out.write("-" if before.hyphen else "")
        out.end_paragraph()
    elif before.hyphen:
        out.write("-" if _keeps_hyphen(before.text, line.text, words) else "")
    else:
        out.write(between)


def _keeps_hyphen(before: str, after: str, words: frozenset[str]) -> bool:
    """Whether "well-" + "known" is "well-known": when the text has that elsewhere, and not "wellknown"."""
    first, second = _WORD.findall(before.casefold()[-60:]), _WORD.match(after.casefold())
    if not first or not second or not after[0].islower():
        return True
    return first[-1] + second[0] not in words and f"{first[-1]}-{second[0]}" in words


def _vocabulary(bodies: list[list[Line]]) -> frozenset[str]:
    """The words of the document, but for those that are cut by a line's end."""
    return frozenset(
        match.casefold()
        for lines in bodies
        for line in lines
        for match in _WORD.findall(line.text)[: -line.hyphen or None]
    )


class _Margins:
    """Where lines end, told for each column of the whole document: of one page too little may be known."""

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
    """What stands between a line and the next: a space, a line end, or the end of a paragraph."""
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
