"""Keep the first copy of running heads and feet, drop page numbers, and never empty a page."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from statistics import median

from longmamba_mlx.documents.formats.lines import Line, Page, whole_lines
from longmamba_mlx.documents.numbering import to_number

_OUTER = 2  # lines at the top and at the bottom of a page that may be furniture
_SAME_HEIGHT = 4.0  # points
_PAGES = 3  # on which a line comes back at the same height to be furniture
_LARGE = 1.15  # of the usual font size: a heading, however often it comes
_WORD = r"page|pages|p\.?|pg\.?|seite|s\.|página|pág\.?|pagina|pag\.?|strona|str\.?|стр\.?|страница|sida|side|sivu"
_OF = r"of|/|von|de|di|da|sur|av|af|z|из|van"
_NUMBER = re.compile(rf"[\W_]*(?:(?:{_WORD})\W*)?(\d{{1,5}}|[ivxlcdm]{{1,8}})(?:\s*(?:{_OF})\s*\d{{1,5}})?[\W_]*", re.I)

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Bodies:
    """Each page's lines that are read, and how many lines were dropped."""

    pages: list[list[Line]]
    left_out: int


def without_furniture(pages: list[Page]) -> Bodies:
    """Remove running heads and page numbers from each page's whole lines.

    Text that recurs on many pages at the same height is kept once, marked `alone`. A line with other words is kept,
    whatever number it contains.
    """
    merged = [whole_lines(page.lines) for page in pages]
    sizes = [line.size for lines in merged for line in lines]
    large = _LARGE * median(sizes) if sizes else 0.0
    keys = [
        {index: _keys(lines[index], number) for index in _outer(lines) if lines[index].size < large}
        for number, lines in enumerate(merged)
    ]
    count = Counter(key for outer in keys for key in {key for found in outer.values() for key in found})
    least = min(_PAGES, max(len(pages), 2))
    kept, left_out = [], 0
    seen: set[str] = set()
    bodies: set[tuple[str, ...]] = set()
    for lines, outer in zip(merged, keys, strict=True):
        furniture = {index for index, found in outer.items() if max(count[key] for key in found) >= least}
        text = tuple(line.text for index, line in enumerate(lines) if index not in furniture)
        if not text or text in bodies:  # nothing but furniture, or a page that comes twice
            kept.append(lines)
            continue
        bodies.add(text)
        page = [_kept(line, seen) if index in furniture else line for index, line in enumerate(lines)]
        kept.append([line for line in page if line is not None])
        left_out += len(lines) - len(kept[-1])
    return Bodies(kept, left_out)


def _outer(lines: list[Line]) -> set[int]:
    """The topmost and the lowest lines."""
    order = sorted((index for index, line in enumerate(lines) if not line.alone), key=lambda index: lines[index].base)
    return set(order[:_OUTER] + order[-_OUTER:])


def _words(line: Line) -> str:
    """A line without the parts of it that are page numbers."""
    cells = [text for text, _, _ in line.cells] or [line.text]
    return " ".join(text for text in cells if not _NUMBER.fullmatch(text)).casefold()


def _keys(line: Line, page: int) -> set[Key]:
    """Keys that a line shares with its copies on other pages: its words, or the offset of its number to the page's.

    Of two heights each, so that none falls between.
    """
    words = _words(line)
    if not words:
        match = _NUMBER.fullmatch(line.text) or _NUMBER.fullmatch(line.text.split()[0])
        words = f"\0{to_number(match[1]) - page}" if match else line.text
    heights = (round(line.base / _SAME_HEIGHT), -1 - round(line.base / _SAME_HEIGHT + 0.5))
    return {(words, height) for height in heights}


def _kept(line: Line, seen: set[str]) -> Line | None:
    words = _words(line)
    if not words and (match := _NUMBER.fullmatch(line.text)):  # "Page 3 of 9": the words, which are read once too
        words = line.text[: match.start(1)].strip()
    if words in seen or not any(map(str.isalpha, words)):
        return None
    seen.add(words)
    return replace(line, alone=True)
