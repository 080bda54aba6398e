"""Lines of text where they stand on a page, and which of them are page furniture: headers, footers, numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from statistics import median

from longmamba_mlx.documents.numbering import to_number

_OUTER = 2  # lines at the top and at the bottom of a page that may be furniture
_SAME_HEIGHT = 4.0  # points
_PAGES = 3  # on which a line comes back at the same height to be furniture
_LARGE = 1.15  # of the usual font size: a heading, however often it comes
_NUMBER = re.compile(r"\b(?:\d{1,4}|[ivxlc]{1,7})\b", re.I)
_MOST_NUMBERS = 4


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its box in points from the page's lower left, and its font size.

    `hyphen`: it ends with one, which is not in `text`.
    """

    text: str
    left: float
    right: float
    base: float
    size: float
    hyphen: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A page's lines in reading order; `pictures`: it shows some."""

    lines: list[Line]
    pictures: bool


def body(pages: list[Page]) -> list[list[Line]]:
    """Each page's lines without what stands on many pages at the same height, and without page numbers."""
    merged = [list(_merged(page.lines)) for page in pages]
    large = _LARGE * median(line.size for lines in merged for line in lines) if any(merged) else 0.0
    keys = [
        {index: _keys(lines[index], number) for index in _outer(lines) if lines[index].size < large}
        for number, lines in enumerate(merged)
    ]
    count = Counter(key for outer in keys for key in {key for found in outer.values() for key in found})
    least = min(_PAGES, max(len(pages), 2))
    kept = []
    for lines, outer in zip(merged, keys, strict=True):
        furniture = {index for index, found in outer.items() if max(count[key] for key in found) >= least}
        kept.append([line for index, line in enumerate(lines) if index not in furniture])
    return kept


def _outer(lines: list[Line]) -> set[int]:
    """The topmost and the lowest lines."""
    order = sorted(range(len(lines)), key=lambda index: lines[index].base)
    return set(order[:_OUTER] + order[-_OUTER:])


def _keys(line: Line, page: int) -> set[tuple[str, int]]:
    """What a line has in common with its like on other pages: the same text, or one in which a number counts pages.

    Of two heights each, so that none falls between.
    """
    text = line.text.casefold()
    texts = [text]
    for match in islice(_NUMBER.finditer(text), _MOST_NUMBERS):
        texts.append(f"{text[: match.start()]}\0{to_number(match[0]) - page}{text[match.end() :]}")
    heights = (round(line.base / _SAME_HEIGHT), -1 - round(line.base / _SAME_HEIGHT + 0.5))
    return {(text, height) for text in texts for height in heights}


def _merged(lines: list[Line]) -> Iterator[Line]:
    """Pieces of one line that stand apart (cells of a table, a tab) as one."""
    held: Line | None = None
    for line in lines:
        if held and abs(held.base - line.base) < 0.3 * held.size and line.left >= held.right - 0.5 * held.size:
            gap = "  " if line.left - held.right > 1.5 * held.size else " "
            held = Line(held.text + gap + line.text, held.left, line.right, held.base, held.size, line.hyphen)
            continue
        if held:
            yield held
        held = line
    if held:
        yield held
