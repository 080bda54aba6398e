"""Places in a document (files, pages, chapters): the place of a character, and the end of a named place."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

from longmamba_mlx.documents.numbering import CONTAINERS, NUMBER, NUMBERED, parse_heading, to_number

Kind = Literal["file", "page", "chapter"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_ALIASES = {
    "ch": "chapter",
    "chap": "chapter",
    "chapters": "chapter",
    "p": "page",
    "pg": "page",
    "pages": "page",
    "bk": "book",
    "vol": "volume",
    "pt": "part",
    "sec": "section",
    "§": "section",
}
_STEP = re.compile(rf"({NUMBERED}|page|file|{'|'.join(_ALIASES)})\.?\s*({NUMBER})(?![\w.])", re.I)
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d+)?)\s*%")
_PARTING = re.compile(r"[\s,.:;–—-]*")


@dataclass(frozen=True, slots=True)
class Place:
    """A file, page or chapter that starts at character `start`.

    `number` is its own (page 12, chapter XII), 0 if it has none; `level` is a chapter's depth: a chapter lasts until
    the next one of the same level or above.
    """

    start: int
    kind: Kind
    label: str
    number: int
    level: int = 1


def ordered(places: Iterable[Place]) -> tuple[Place, ...]:
    """Sort places by position; at the same position file, page, then chapters."""
    return tuple(sorted(places, key=lambda place: (place.start, KINDS.index(place.kind), place.level)))


class PlaceMap:
    """The places of a document of `length` characters, `places` ordered, `files` their bounds."""

    def __init__(self, places: Sequence[Place], files: Sequence[tuple[int, int]], length: int) -> None:
        self._files, self._length = files, length
        self._file_starts = [start for start, _ in files]
        self._kinds = {kind: [place for place in places if place.kind == kind] for kind in KINDS}
        self._starts = {kind: [place.start for place in found] for kind, found in self._kinds.items()}
        self._titles = dict(zip(self._starts["chapter"], _full_titles(self._kinds["chapter"]), strict=True))

    def at(self, offset: int) -> str:
        """ "page 12", or where there are no pages "Chapter 3: The Whale"; with the file's name if there are several."""
        names = [place.label] if (place := self._last("file", offset)) else []
        if page := self._last("page", offset):
            names.append(page.label)
        elif chapter := self._last("chapter", offset):
            names.append(self._titles[chapter.start])
        return ", ".join(names)

    def chapter_at(self, offset: int) -> str:
        """The label of the chapter around `offset`, "" before the first."""
        place = self._last("chapter", offset)
        return place.label if place else ""

    def end_of(self, wanted: str) -> int | None:
        """Where the place ends that `wanted` names ("chapter 12", "page 40", "50%", a label); None: no such place."""
        wanted = " ".join(wanted.split())
        if percent := _PERCENT.fullmatch(wanted):
            share = float(percent[1]) / 100
            return round(share * self._length) if 0 < share <= 1 else None
        place = self._by_label(wanted, whole=True) or self._by_steps(wanted) or self._by_label(wanted, whole=False)
        return None if place is None else self._end(place)

    def named_in(self, text: str) -> tuple[list[tuple[int, int]], str]:
        """The stretches (start, end) in characters of places that a text names, and the text without their names.

        "What happens in chapter 3?" names one; what names no place of the document stays in the text.
        """
        found, rest, position = [], text, 0
        while match := _STEP.search(text, position):
            position = match.end()
            while following := _STEP.match(text, _PARTING.match(text, position).end()):  # type: ignore[union-attr]
                position = following.end()
            place = self._by_steps(text[match.start() : position])
            if place is not None:
                found.append((place.start, self._end(place)))
                rest = rest.replace(text[match.start() : position], " ", 1)
        return found, rest

    def labels(self, count: int) -> list[str]:
        """The first places, as examples for a message."""
        found = (place for kind in KINDS for place in self._kinds[kind])
        return [place.label for place in islice(found, count)]

    def _last(self, kind: Kind, offset: int) -> Place | None:
        """The last place of a kind that starts at or before `offset`, in the same file."""
        index = bisect_right(self._starts[kind], offset) - 1
        if index < 0 or self._kinds[kind][index].start < self._bounds(offset)[0]:
            return None
        return self._kinds[kind][index]

    def _bounds(self, offset: int) -> tuple[int, int]:
        return self._files[max(bisect_right(self._file_starts, offset) - 1, 0)]

    def _end(self, place: Place) -> int:
        end = self._bounds(place.start)[1]
        index = bisect_right(self._starts[place.kind], place.start)
        for later in self._kinds[place.kind][index:]:
            if later.start >= end or later.level <= place.level:
                return min(later.start, end)
        return end

    def _by_label(self, wanted: str, *, whole: bool) -> Place | None:
        plain = _plain(wanted)
        if not plain:
            return None
        named = [*self._kinds["chapter"], *self._kinds["file"]]
        if whole:
            return next((place for place in (*named, *self._kinds["page"]) if _plain(place.label) == plain), None)
        # "section 3.1" and "3.1" both mean the heading "3.1 Setting up"
        bare = re.sub(r"^(?:chapter|section) (?=\d+\.\d)", "", plain)
        for words in dict.fromkeys((plain, bare)):
            pattern = re.compile(rf"(?<!\w){re.escape(words)}(?!\w)")
            if place := next((place for place in named if pattern.search(_plain(place.label))), None):
                return place
        return None

    def _by_steps(self, wanted: str) -> Place | None:
        """ "Book Two, chapter 3": each step is looked for within the one before it."""
        steps: list[tuple[str, int]] = []
        position = 0
        while match := _STEP.match(wanted, position):
            word = match[1].lower()
            steps.append((_ALIASES.get(word, word), to_number(match[2])))
            position = _PARTING.match(wanted, match.end()).end()  # type: ignore[union-attr]
        if position != len(wanted) or not steps:
            return None
        place, start, end = None, 0, self._length
        for word, number in steps:
            place = self._numbered(word, number, start, end)
            if place is None:
                return None
            start, end = place.start, self._end(place)
        return place

    def _numbered(self, word: str, number: int, start: int, end: int) -> Place | None:
        kind: Kind = "page" if word == "page" else "file" if word == "file" else "chapter"
        first = bisect_left(self._starts[kind], start)
        last = bisect_left(self._starts[kind], end)
        found = [place for place in self._kinds[kind][first:last] if place.number == number]
        if kind != "chapter":
            return found[0] if found else None
        words = [(parse_heading(place.label)[0], place) for place in found]
        named = (place for own, place in words if own == word)
        # "chapter 3" also means "3. Results" or "ADVENTURE III", but not "BOOK THREE"
        loose = (place for own, place in words if word in ("chapter", "section") and own not in CONTAINERS)
        return next(named, None) or next(loose, None)


def _full_titles(chapters: Sequence[Place]) -> list[str]:
    """Labels, with the book or part before those that come more than once ("BOOK TWO, CHAPTER I")."""
    times = Counter(place.label for place in chapters)
    titles: list[str] = []
    around: list[Place] = []
    for place in chapters:
        while around and around[-1].level >= place.level:
            around.pop()
        above = f"{around[-1].label}, " if around and times[place.label] > 1 else ""
        titles.append(above + place.label)
        around.append(place)
    return titles


def _plain(label: str) -> str:
    return " ".join(label.casefold().split()).rstrip(" .:")
