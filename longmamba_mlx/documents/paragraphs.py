"""Paragraphs and the headings they stand under, told by character offsets; the text itself is not changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST = 2000  # characters: a log or a book without blank lines still falls into passages one can read

_GAP = re.compile(r"\n[ \t\f\v]*\n\s*")
_MARKDOWN = re.compile(r"^#{1,6}[ \t]+(\S[^\n]*)$", re.M)
_UNDERLINED = re.compile(r"([^\n]{1,120})\n(={3,}|-{3,})[ \t]*(?:\n|$)")
_WORDS = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
    "|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|last"
    "|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth"
)
_NUMBER = rf"(?:[0-9]{{1,4}}|[IVXLCDM]{{1,8}}|(?:the\s+)?(?:{_WORDS})(?:-(?:{_WORDS}))?)"
# A title after the number begins with anything but a small letter: "Chapter 3 was dull." is no heading.
_TITLE = r"(?:[.:]?\s*[—–-]?\s*(?-i:[^\sa-z])[^\n]{0,100}(?:\n[^\n]{1,100})?)?"
_CAPITALISED = r"[^\sa-z]\S*|a|an|and|at|by|for|from|in|of|on|or|the|to|with"  # a word in a title
_CHAPTER = re.compile(
    rf"(?:(?:chapter|book|part|act|scene|canto|letter|adventure|section|volume|appendix|stave)\s+{_NUMBER}\b{_TITLE}[.:]?"
    r"|(?:prologue|epilogue|preface|foreword|introduction|conclusion|afterword)[.:]?"
    rf"|(?-i:[IVXLC]{{1,7}}\.(?:[ \t]+(?:{_CAPITALISED})){{1,14}}))\s*$",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Paragraph:
    """text[start:end], in characters. `number` counts from 1; `heading` is the nearest one above, or ""."""

    start: int
    end: int
    number: int
    heading: str


def split_paragraphs(text: str) -> Iterator[Paragraph]:
    """Split at blank lines and at Markdown headings; what is over LONGEST characters is cut at a good place.

    A paragraph that begins with a heading ("# Title", a line underlined with === or ---) or is one
    ("CHAPTER I", "Prologue") stands under itself.
    """
    heading = ""
    number = 0
    for start, end in _blocks(text):
        for first, last in _cut(text, start, end):
            number += 1
            heading = _heading(text, first, last) or heading
            yield Paragraph(first, last, number, heading)


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Runs of lines between blank lines, without the white space around them."""
    position = len(text) - len(text.lstrip())
    length = len(text.rstrip())
    for gap in _GAP.finditer(text, position, length):
        yield from _at_headings(text, position, gap.start())
        position = gap.end()
    if position < length:
        yield from _at_headings(text, position, length)


def _at_headings(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A Markdown heading ends a paragraph without a blank line, and so does its own line."""
    for match in _MARKDOWN.finditer(text, start, end):
        if match.start() > start:
            yield start, match.start() - 1
        yield match.span()
        start = match.end() + 1
    if start < end:
        yield start, end


def _cut(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
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


def _heading(text: str, start: int, end: int) -> str:
    """The heading that this paragraph is, on one line; "" when it is none."""
    if text[start] == "#" and (match := _MARKDOWN.match(text, start, end)):
        return match[1].strip().rstrip("#").strip()
    if match := _UNDERLINED.match(text, start, end):
        return match[1].strip()
    if end - start <= 220 and _CHAPTER.match(text, start, end):
        return " ".join(text[start:end].split())
    return ""
