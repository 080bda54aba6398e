"""Split a text into runs of lines between blank lines, by character offsets."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LONGEST = 2000  # characters: a log or a book without blank lines still falls into passages one can read
MARKDOWN = re.compile(r"^#{1,6}[ \t]+(\S[^\n]*)$", re.M)
_GAP = re.compile(r"\n[ \t\f\v]*\n\s*")
_FENCE = re.compile(r"^(```+|~~~+)[^\n]*\n.*?^\1", re.M | re.S)
_STRETCH = 1 << 20  # characters, at least
_LONGEST_RUN = 1 << 21  # characters: a longer one is cut where a text is not held


@dataclass(frozen=True, slots=True)
class Stretch:
    """text[start:end], the text's first character being the document's character `offset`."""

    text: str
    start: int
    end: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """A run of lines: text[start:end]. `number` counts them from 1; `code`: it is inside a Markdown code fence."""

    text: str
    start: int
    end: int
    offset: int
    number: int
    code: bool


def stretches(pieces: Iterable[str]) -> Iterator[Stretch]:
    """Group pieces into stretches that end between two runs, or within a run that is too long."""
    held, offset = "", 0
    for piece in pieces:
        held += piece
        if len(held) < _STRETCH:
            continue
        stop = held.rfind("\n\n")
        if stop <= 0 and len(held) > _LONGEST_RUN:
            stop = held.rfind("\n") if "\n" in held[1:] else len(held)
        if stop > 0:
            yield Stretch(held, 0, stop, offset)
            held, offset = held[stop:], offset + stop
    yield Stretch(held, 0, len(held), offset)


def runs(parts: Iterable[Stretch]) -> Iterator[Run]:
    """Yield all runs of a text. A code fence is recognised where one stretch holds all of it."""
    number = 0
    for part in parts:
        text = part.text
        code = [m.span() for m in _FENCE.finditer(text, part.start, part.end)] if "```" in text or "~~~" in text else []
        begins = [begin for begin, _ in code]
        for start, end in blocks(text, part.start, part.end):
            number += 1
            fence = bisect_right(begins, start)
            yield Run(text, start, end, part.offset, number, bool(fence and start < code[fence - 1][1]))


def blocks(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Runs of lines between blank lines, without the white space around them; a Markdown heading is its own."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    for gap in _GAP.finditer(text, start, end):
        yield from _at_headings(text, start, gap.start())
        start = gap.end()
    if start < end:
        yield from _at_headings(text, start, end)


def cut(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut at the last line end, else sentence end, else space, else anywhere, within LONGEST characters."""
    while end - start > LONGEST:
        stop = start + LONGEST
        least = start + LONGEST // 2
        cut = text.rfind("\n", least, stop)
        if cut <= 0:
            cut = max(text.rfind(mark, least, stop) for mark in (". ", "! ", "? ", "。")) + 1
        if cut <= 0:
            cut = text.rfind(" ", least, stop)
        if cut <= 0:
            cut = stop
        yield start, cut
        start = cut
        while start < end and text[start].isspace():
            start += 1
    if start < end:
        yield start, end


def _at_headings(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for match in MARKDOWN.finditer(text, start, end):
        if match.start() > start:
            yield start, match.start() - 1
        yield match.span()
        start = match.end() + 1
    if start < end:
        yield start, end
