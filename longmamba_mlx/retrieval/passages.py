"""Find the passages related to a question and its answer, since a state cannot point to its source.

They come from a full-text index over the paragraphs (`passage_index`). What it finds is *related*; only a passage that
contains the answer word for word is a quote.
"""

from __future__ import annotations

import math
import re
import sqlite3
import threading
import unicodedata
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from longmamba_mlx.documents.places import PlaceMap
from longmamba_mlx.documents.streamed_text import Text, length_of, text_between
from longmamba_mlx.errors import DiskError
from longmamba_mlx.events import Passage
from longmamba_mlx.ground.steps import Stop
from longmamba_mlx.retrieval.passage_index import open_index, place_map
from longmamba_mlx.retrieval.words import (
    COMMON,
    MOST_WORDS,
    WORD,
    folded,
    folded_words,
    names_in,
    telling_words,
    words_in,
)

_ENUMERATOR = re.compile(r"^\s*\d+[.)]\s", re.M)  # of a list item: no part of the answer
_CODE = re.compile(r"[^\s–—]*\d[^\s–—]*")
_AROUND = " .,;:!?\"'“”‘’«»()[]*_`"
_UNITS = "%$€£#°"
_CANDIDATES = 100
_LONGEST_HEADING = 250  # characters
_Arguments = ParamSpec("_Arguments")
_Found = TypeVar("_Found")


def _despite_the_disk(
    search: Callable[Concatenate[PassageIndex, _Arguments], _Found],
) -> Callable[Concatenate[PassageIndex, _Arguments], _Found]:
    """Search again in an index rebuilt in memory, when the stored one can no longer be read."""

    @wraps(search)
    def searched(self: PassageIndex, /, *arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Found:
        try:
            return search(self, *arguments, **options)
        except sqlite3.Error:
            self._leave_file()
        try:
            return search(self, *arguments, **options)
        except sqlite3.Error as error:
            hint = "Check the disk that holds temporary files."
            raise DiskError(f"The index of passages cannot be read: {error}.", hint=hint) from None

    return searched


class PassageIndex:
    """A full-text index over a document's passages, opened or built on the first search; usable from any thread.

    `file` is where it is stored, if anywhere; a disk that fails later costs only the time to build it again. Raises
    LongMambaError if SQLite lacks FTS5, DiskError without room for the index of a text that is not held in memory.
    """

    def __init__(self, document: Text, file: Path | None = None) -> None:
        self._document, self._file = document, file
        self._lock = threading.Lock()
        self._opened: tuple[sqlite3.Connection, PlaceMap] | None = None

    @_despite_the_disk
    def places(self, should_stop: Stop | None = None) -> PlaceMap:
        """The pages and chapters of the document. Raises StoppedError while the index is built."""
        with self._lock:
            return self._open(should_stop)[1]

    @_despite_the_disk
    def search(
        self,
        question: str,
        answer: str,
        limit: int = 3,
        *,
        start: int = 0,
        end: int | None = None,
        should_stop: Stop | None = None,
    ) -> tuple[Passage, ...]:
        """The `limit` most related passages: quotes first, then by the question's rare words in them.

        Nothing after character `end` is searched, and nothing before the passage around `start`. Raises StoppedError
        while the index is built.
        """
        return self._search(question, answer, limit, self._around(start, should_stop), end, should_stop)

    @_despite_the_disk
    def nearest(
        self, question: str, limit: int = 3, *, end: int | None = None, should_stop: Stop | None = None
    ) -> tuple[Passage, ...]:
        """The passages to show without an answer: from places that the question names, then by its words.

        "What does Jane say in chapter 3?" searches chapter 3; without any other distinctive word the first passages of
        that place are taken. Only the text before character `end` is searched.
        """
        named, rest = self.places(should_stop).named_in(question)
        last = length_of(self._document) if end is None else end
        known = [(start, min(stop, last)) for start, stop in named if start < last]
        if not known:
            found = self._first_mentions(names_in(question), end, should_stop)
            found += self.search(question, "", limit, end=end, should_stop=should_stop)
            return tuple(dict.fromkeys(found))[:limit]
        telling = any(word not in COMMON for word in words_in(rest))
        found = []
        for start, stop in known:
            inside = self._search(rest, "", limit, start, stop, should_stop) if telling else ()
            found += self._first(start, stop, 1 if inside else limit)
            found += inside
        return tuple(dict.fromkeys(found))[:limit]

    @_despite_the_disk
    def comes_later(self, question: str, end: int, *, should_stop: Stop | None = None) -> bool:
        """Whether the passage nearest to the question is after character `end` and contains the name asked for."""
        telling = telling_words(words_in(question))
        needed = self._rarest(names_in(question) or [telling], None, should_stop)
        with self._lock:
            database, _ = self._open(should_stop)
            weights = _rarity(database, telling, _count(database, None))
        # The passage around `end` counts on both sides: before it what it holds up to there.
        around = self._around(end, should_stop)
        before = self._nearest_words(question, 0, end, should_stop)
        after = self._nearest_words(question, around, None, should_stop)
        weight = [sum(weights[word] for word in present if word in weights) for present in (before, after)]
        return bool(needed & after) and weight[1] > weight[0]

    def _around(self, character: int, should_stop: Stop | None) -> int:
        """The first character of the last passage that begins before `character`; 0 without one."""
        if not character:
            return 0
        with self._lock:
            database, _ = self._open(should_stop)
            (start,) = database.execute("SELECT max(start) FROM spans WHERE start < ?", (character,)).fetchone()
            return int(start or 0)

    def _nearest_words(self, question: str, start: int, end: int | None, should_stop: Stop | None) -> set[str]:
        """The words of the passage nearest to the question within a stretch."""
        found = self._search(question, "", 1, start, end, should_stop)
        return folded_words(found[0].text) if found else set()

    def _first_mentions(self, names: list[list[str]], end: int | None, should_stop: Stop | None) -> list[Passage]:
        """The first passage with all words of each name, which often introduces the person or thing."""
        with self._lock:
            database, places = self._open(should_stop)
            last = _count(database, end)
            query = "SELECT min(rowid) FROM passages WHERE passages MATCH ? AND rowid <= ?"
            found = [database.execute(query, (_join(name, "AND"), last)).fetchone()[0] for name in names]
            rows = [self._below_headings(database, places, row, last, end) for row in found if row]
            return [_passage(row, *self._text(database, row, end), places, quoted=False) for row in rows]

    def _first(self, start: int, end: int, count: int) -> list[Passage]:
        """The first passages of a stretch."""
        with self._lock:
            database, places = self._open(None)
            first, last = _count(database, start) + 1, _count(database, end)
            first = self._below_headings(database, places, first, last, end)
            rows = range(first, min(first + count, last + 1))
            return [_passage(row, *self._text(database, row, end), places, quoted=False) for row in rows]

    def _search(
        self, question: str, answer: str, limit: int, start: int, end: int | None, should_stop: Stop | None
    ) -> tuple[Passage, ...]:
        """`search` within the characters from `start` to `end`."""
        asked = words_in(question)
        told = words_in(answer)
        telling = telling_words(asked)
        with self._lock:
            database, places = self._open(should_stop)
            first, total = _count(database, start) + 1 if start else 1, _count(database, end)
            rows = _candidates(database, telling, told, first, total)
            weights = _rarity(database, telling, total)
            texts = {row: self._text(database, row, end) for row in rows}
        wanted = {folded(word) for word in (*asked, *told)}
        verbatim = _verbatim(answer, told)
        scored: list[tuple[bool, float, int, int]] = []
        for row, (_, text) in texts.items():
            present = folded_words(text)
            if row == total and end is not None and not wanted & present:
                continue  # its matching words come after the end
            quoted = verbatim is not None and verbatim.search(_plain(text)) is not None
            overlap = sum(weight for word, weight in weights.items() if word in present)
            scored.append((not quoted, -overlap, len(scored), row))
        best: dict[str, Passage] = {}  # identical passages are shown once
        with self._lock:
            for unquoted, _, _, row in sorted(scored):
                if len(best) >= limit:
                    break
                shown = self._below_headings(database, places, row, total, end) if unquoted else row
                start, text = texts[shown] if shown in texts else self._text(database, shown, end)
                best.setdefault(text, _passage(shown, start, text, places, quoted=not unquoted))
        return tuple(best.values())

    @_despite_the_disk
    def not_in_text(self, answer: str, *, end: int | None = None, should_stop: Stop | None = None) -> tuple[str, ...]:
        """The numbers and codes of an answer that occur nowhere before character `end`, each once.

        Raises StoppedError while the index is built.
        """
        codes = _codes(answer)
        if not codes:
            return ()
        with self._lock:
            database, _ = self._open(should_stop)
            last = _count(database, end)
            return tuple(code for code in codes if not self._stands(database, code, last, end))

    @_despite_the_disk
    def missing_names(
        self, question: str, *, end: int | None = None, should_stop: Stop | None = None
    ) -> tuple[str, ...]:
        """The names in a question that have a word which does not occur before character `end`, as their words.

        Raises StoppedError while the index is built.
        """
        names = names_in(question)
        with self._lock:
            database, _ = self._open(should_stop)
            last = _count(database, end)
            return tuple(
                " ".join(name)
                for name in names
                if not all(_matching(database, _join([word], ""), 1, last) for word in name)
            )

    @_despite_the_disk
    def to_reread(
        self, question: str, limit: int, *, end: int | None = None, should_stop: Stop | None = None
    ) -> tuple[Passage, ...]:
        """The `limit` passages to read again before a question, in the document's order.

        Where the question asks for a name, only passages with that name's rarest word: another's facts, read again
        right before the question, would be taken for its answer. Nothing after character `end` is searched.
        """
        needed = self._rarest(names_in(question), end, should_stop)
        found = [
            passage
            for passage in self.search(question, "", _CANDIDATES, end=end, should_stop=should_stop)
            if not needed or needed & folded_words(passage.text)
        ]
        return tuple(sorted(found[:limit], key=lambda passage: passage.start))

    def _rarest(self, names: list[list[str]], end: int | None, should_stop: Stop | None) -> set[str]:
        """Of each name the word that the fewest passages have."""
        with self._lock:
            database, _ = self._open(should_stop)
            total = _count(database, end)
            weights = [_rarity(database, name, total) for name in names]
        return {max(words, key=words.__getitem__) for words in weights}

    def _open(self, should_stop: Stop | None) -> tuple[sqlite3.Connection, PlaceMap]:
        if self._opened is None:
            database = open_index(self._document, self._file, should_stop)
            self._opened = database, place_map(database, self._document)
        return self._opened

    def _leave_file(self) -> None:
        with self._lock:
            opened, self._opened, self._file = self._opened, None, None
            if opened is not None:
                opened[0].close()

    def _stands(self, database: sqlite3.Connection, code: str, last: int, end: int | None) -> bool:
        """Whether one of the passages up to number `last` contains a code, word for word."""
        written = _standing_alone(_plain(code))
        rows = _matching(database, f'"{" ".join(WORD.findall(code))}"', 1, last)
        return any(written.search(_plain(self._text(database, row, end)[1])) for row in rows)

    def _below_headings(
        self, database: sqlite3.Connection, places: PlaceMap, row: int, last: int, end: int | None
    ) -> int:
        """The passage itself, or where it is but a heading, the first one below: its heading is told with its place."""
        below = row
        while below <= last:
            start, text = self._text(database, below, end)
            if len(text) > _LONGEST_HEADING or words_in(text) != words_in(places.chapter_at(start)):
                return below
            below += 1
        return row

    def _text(self, database: sqlite3.Connection, number: int, end: int | None) -> tuple[int, str]:
        """The first character of a passage, and its text up to character `end`."""
        start, stop = database.execute("SELECT start, end FROM spans WHERE number = ?", (number,)).fetchone()
        return start, text_between(self._document, start, stop if end is None else min(stop, end))


def _count(database: sqlite3.Connection, end: int | None) -> int:
    """The number of passages that begin before character `end`."""
    if end is None:
        query = database.execute("SELECT max(number) FROM spans")
    else:
        query = database.execute("SELECT count(*) FROM spans WHERE start < ?", (end,))
    return int(query.fetchone()[0] or 0)


def _candidates(database: sqlite3.Connection, asked: list[str], told: list[str], first: int, last: int) -> list[int]:
    """Passages `first` to `last` with all words of the answer, then those with any word, each ranked by bm25."""
    queries = []
    if told:
        queries.append(f"({_join(told, 'AND')}) AND ({_join([*told, *asked], 'OR')})")
    if asked or told:
        telling = [word for word in told if word not in COMMON]
        queries.append(_join([*asked, *telling] or told, "OR"))
    rows: dict[int, None] = {}
    for query in queries:
        rows.update(dict.fromkeys(_matching(database, query, first, last)))
    return list(rows)


def _matching(database: sqlite3.Connection, query: str, first: int, last: int) -> list[int]:
    """The best matches of an FTS5 query among the passages `first` to `last`."""
    found = database.execute(
        "SELECT rowid FROM passages WHERE passages MATCH ? AND rowid BETWEEN ? AND ? ORDER BY rank LIMIT ?",
        (query, first, last, _CANDIDATES),
    )
    return [row for (row,) in found]


def _rarity(database: sqlite3.Connection, words: list[str], total: int) -> dict[str, float]:
    """The inverse document frequency of each word, folded, among `total` passages, as in bm25."""
    weights = {}
    for word in map(folded, words):
        row = database.execute("SELECT doc FROM terms WHERE term = ?", (word,)).fetchone()
        count = min(row[0], total) if row else 0
        weights[word] = math.log(1 + (total - count + 0.5) / (count + 0.5))
    return weights


def _passage(number: int, start: int, text: str, places: PlaceMap, *, quoted: bool) -> Passage:
    return Passage(number, start, start + len(text), text, places.chapter_at(start), quoted, places.at(start))


def _join(words: Iterable[str], operator: str) -> str:
    """An FTS5 query in which every word is a quoted string: the user's text is never syntax."""
    return f" {operator} ".join('"' + word.replace('"', '""') + '"' for word in words)


def _plain(text: str) -> str:
    """Normalise a text for comparing word for word: composed characters, no case, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def _verbatim(answer: str, words: list[str]) -> re.Pattern[str] | None:
    """The words that a passage must contain to be a quote; None for an answer of common words only ("Yes.")."""
    plain = _plain(answer).strip(_AROUND)
    if not plain or all(word in COMMON for word in words):
        return None
    return _standing_alone(plain)


def _standing_alone(plain: str) -> re.Pattern[str]:
    """A pattern that finds a text as whole words in what `_plain` returns."""
    return re.compile(rf"(?<!\w){re.escape(plain)}(?!\w)")


def _codes(answer: str) -> list[str]:
    """The words with a digit, without surrounding punctuation: "It is (A-113)." -> A-113."""
    text = _ENUMERATOR.sub("", unicodedata.normalize("NFC", answer))
    found = (match[0].strip(_AROUND + _UNITS) for match in _CODE.finditer(text))
    return list(dict.fromkeys(code for code in found if code))[:MOST_WORDS]
