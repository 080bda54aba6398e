"""Runs of lines between blank lines, by character offsets: what paragraphs and headings are made of."""

from __future__ import annotations

import re
from collections.abc import Iterator

LONGEST = 2000  # characters: a log or a book without blank lines still falls into passages one can read
MARKDOWN = re.compile(r"^#{1,6}[ \t]+(\S[^\n]*)$", re.M)
_GAP = re.compile(r"\n[ \t\f\v]*\n\s*")


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
