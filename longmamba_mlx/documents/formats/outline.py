"""Compute the automatic numbers and bullets of lists, which are not part of a document's text."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from longmamba_mlx.documents.formats.xmltree import attribute, local

LEVELS = 9
_MOST = 100_000  # beyond, a counter is hostile
_ROMAN = ((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"),
          (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))  # fmt: skip


@dataclass
class NumberedList:
    """How each level of a list is numbered, in Word's words: "decimal", "%1.%2."; and how far it has counted."""

    formats: list[str] = field(default_factory=lambda: ["decimal"] * LEVELS)
    texts: list[str] = field(default_factory=lambda: [""] * LEVELS)
    starts: list[int] = field(default_factory=lambda: [1] * LEVELS)
    counts: list[int] = field(default_factory=lambda: [0] * LEVELS)


class Outline:
    """A document's lists, those of `word/numbering.xml` among them, counting as the document is gone through."""

    def __init__(self, numbering: Element | None = None) -> None:
        self._lists: dict[str, NumberedList] = {}
        abstract: dict[str, NumberedList] = {}
        for element in numbering if numbering is not None else ():
            if local(element.tag) == "abstractNum":
                abstract[attribute(element, "abstractNumId")] = _list(element)
            elif local(element.tag) == "num":
                shared = next((abstract.get(attribute(child, "val")) for child in element), None) or NumberedList()
                restarts = any(local(child.tag) == "startOverride" for child in element.iter())
                self._lists[attribute(element, "numId")] = deepcopy(shared) if restarts else shared

    def add(self, key: str, numbered: NumberedList) -> None:
        """Add a list under a key."""
        self._lists[key] = numbered

    def restart(self, key: str) -> None:
        """Reset a list's counters."""
        if key in self._lists:
            self._lists[key].counts = [0] * LEVELS

    def next_label(self, number: str, level: str) -> str:
        """Return the label of the next paragraph of this list and level: "- ", "4.2 ", or "" for none."""
        numbered = self._lists.get(number)
        depth = int(level) if level.isdecimal() and len(level) == 1 else 0
        if numbered is None or depth >= LEVELS or numbered.formats[depth] == "none":
            return ""
        if numbered.formats[depth] == "bullet":
            return "- "
        counts = numbered.counts
        counts[depth] = min(counts[depth] + 1, _MOST) if counts[depth] else numbered.starts[depth]
        counts[depth + 1 :] = [0] * (LEVELS - depth - 1)
        label = re.sub(r"%([1-9])", lambda match: self._number(numbered, int(match[1]) - 1), numbered.texts[depth])
        return f"{label.strip()} " if label.strip() else ""

    @staticmethod
    def _number(numbered: NumberedList, depth: int) -> str:
        value = numbered.counts[depth] or numbered.starts[depth]
        return _FORMATS.get(numbered.formats[depth], str)(value)


def _list(element: Element) -> NumberedList:
    found = NumberedList()
    for level in element:
        index = attribute(level, "ilvl")
        if local(level.tag) != "lvl" or not (index.isdecimal() and int(index) < LEVELS):
            continue
        for child in level:
            name, value = local(child.tag), attribute(child, "val")
            if name == "numFmt":
                found.formats[int(index)] = value
            elif name == "lvlText":
                found.texts[int(index)] = value[:40]
            elif name == "start" and value.isdecimal() and len(value) < 6:
                found.starts[int(index)] = int(value)
    return found


def _roman(value: int) -> str:
    letters = ""
    for worth, letter in _ROMAN:
        times, value = divmod(value, worth)
        letters += letter * times
    return letters


def _letter(value: int) -> str:
    """1 -> a, 26 -> z, 27 -> aa, as Word counts."""
    return chr(ord("a") + (value - 1) % 26) * min((value - 1) // 26 + 1, 10) if value else ""


_FORMATS: dict[str, Callable[[int], str]] = {
    "lowerRoman": _roman,
    "upperRoman": lambda value: _roman(value).upper(),
    "lowerLetter": _letter,
    "upperLetter": lambda value: _letter(value).upper(),
    "decimalZero": lambda value: f"{value:02d}",
}
