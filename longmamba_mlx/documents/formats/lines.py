"""Assemble positioned pieces of text into lines, and recognise the rows of tables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from longmamba_mlx.documents.formats.columns import by_rows

_BASELINE = 0.3  # of the font size: pieces that differ less stand on one line
_WIDE = 1.2  # of the font size: a gap between cells
_ALIGNED = 0.6  # of the font size
_NEAR = 4.0  # font sizes between rows of one table, at most
_RAISED, _HIGHEST = 0.15, 0.9  # of the font size, above the line
_LONGEST_MARK = 3  # characters
_LABEL = re.compile(r"[•◦▪‣·●○■□–*-]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)]")
CELL = " | "


@dataclass(frozen=True, slots=True)
class Line:
    """A line, or a piece of one: its box in points from the page's lower left, and its font size.

    `hyphen`: it ends with a hyphen that is not in `text`. `cells`: text, left and right edge of its parts, if wide gaps
    divide it. `row`: it is a table row. `alone`: it does not belong to the text around it (a running head, a comment).
    """

    text: str
    left: float
    right: float
    base: float
    size: float
    hyphen: bool = False
    cells: tuple[tuple[str, float, float], ...] = ()
    row: bool = False
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A page's lines in reading order; `pictures`: it shows some; how many of its characters have no known letter."""

    lines: list[Line]
    pictures: bool
    characters: int = 0
    unmapped: int = 0


def whole_lines(pieces: Iterable[Line]) -> list[Line]:
    """Join pieces on one baseline into lines; separate the cells of table rows by " | "."""
    groups: list[list[Line]] = []
    for piece in by_rows(list(pieces)):
        if groups and _goes_on(groups[-1], piece):
            groups[-1].append(piece)
        else:
            groups.append([piece])
    lines = [_joined(group) for group in groups]
    rows = [_is_row(lines, index) for index in range(len(lines))]
    return [_as_row(line) if is_row else line for line, is_row in zip(lines, rows, strict=True)]


def marked(before: str, mark: str) -> str:
    """Format a superscript after a text so that they do not merge: m^2 and 10^6, but word[1]."""
    mark = mark.strip()
    word = re.search(r"\w+$", before)
    if not mark.isalnum() or (not word and not before[-1:].strip()):
        return mark
    if word and (word[0][-1].isdigit() or len(word[0]) < 3) and mark.isdigit():
        return f"^{mark}"
    return mark if word and word[0].isdigit() else f"[{mark}]"


def _goes_on(group: list[Line], piece: Line) -> bool:
    first, last = group[0], group[-1]
    if piece.alone or first.alone or piece.left < last.right - 0.5 * first.size:
        return False
    return abs(first.base - piece.base) < _BASELINE * first.size or _is_raised(first, last, piece)


def _is_raised(first: Line, last: Line, piece: Line) -> bool:
    above = piece.base - first.base
    near = piece.left - last.right < 0.5 * first.size
    return near and len(piece.text) <= _LONGEST_MARK and _RAISED * first.size < above < _HIGHEST * first.size


def _joined(group: list[Line]) -> Line:
    first = group[0]
    if len(group) == 1:
        return first
    cells = [(first.text, first.left, first.right)]
    last = first
    for piece in group[1:]:
        text, left, _ = cells[-1]
        if abs(first.base - piece.base) >= _BASELINE * first.size:
            cells[-1] = text + marked(text, piece.text), left, piece.right
        elif piece.left - last.right > _WIDE * first.size and not (len(cells) == 1 and _LABEL.fullmatch(text)):
            cells.append((piece.text, piece.left, piece.right))
        else:
            space = "" if last.hyphen or piece.text[0] in ",.;:!?)" else " "
            cells[-1] = f"{text}{space}{piece.text}", left, piece.right
        last = piece
    whole = "  ".join(text for text, _, _ in cells)
    return replace(
        first, text=whole, right=last.right, hyphen=last.hyphen, cells=tuple(cells) if len(cells) > 1 else ()
    )


def _is_row(lines: list[Line], index: int) -> bool:
    """Whether a line's parts are aligned with those of the line before or after it."""
    line = lines[index]
    near = (lines[other] for other in (index - 1, index + 1) if 0 <= other < len(lines))
    return len(line.cells) > 1 and any(
        abs(other.base - line.base) < _NEAR * line.size and _aligned(line, other) > 1 for other in near
    )


def _aligned(line: Line, other: Line) -> int:
    """Count the parts of a line whose left edge, right edge or middle matches one of the other line."""
    within = _ALIGNED * line.size
    return sum(
        any(min(abs(left - a), abs(right - b), abs(left + right - a - b) / 2) < within for _, a, b in other.cells)
        for _, left, right in line.cells
    )


def _as_row(line: Line) -> Line:
    text = CELL.join(cell for cell, _, _ in line.cells)
    return replace(line, text=f"{text}-" if line.hyphen else text, hyphen=False, row=True)
