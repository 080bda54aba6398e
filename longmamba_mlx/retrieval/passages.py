"""Related passages, found after the answer: a state cannot point to its source, a full-text index can.

A full-text index over the paragraphs (`passagefile`). What it finds is *related*; only a passage in which the answer
stands word for word is a quote.
"""

from __future__ import annotations

import math
import re
import sqlite3
import threading
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from longmamba_mlx.documents.places import PlaceMap
from longmamba_mlx.documents.streamed_text import Text, text_between
from longmamba_mlx.events import Passage as Passage
from longmamba_mlx.retrieval.passage_index import Stop, open_index, place_map

_WORD = re.compile("[^\\W_](?:[^\\W_]|[\u0300-\u036f])*")
_ENUMERATOR = re.compile(r"^\s*\d+[.)]\s", re.M)  # of a list: it is no part of what is said
_CODE = re.compile(r"[^\s–—]*\d[^\s–—]*")
_AROUND = " .,;:!?\"'“”‘’«»()[]*_`"
_UNITS = "%$€£#°"
_MOST_WORDS = 64
_CANDIDATES = 100
# Words that say nothing about a place. A question made of nothing else is searched with them.
_FUNCTION_WORDS = """
a about an and any are as at be been but by can could did do does for from had has have he her him his how i
if in into is it its me my no not of on or our she should so some such than that the their them then there
these they this those to was we were what when where which who whom whose why will with would yes you your
"""
_COMMON = frozenset(_FUNCTION_WORDS.split())


class PassageIndex:
    """Full-text index over a text's passages, opened or built on the first search; usable from any thread.

    `file` is where it is stored, if anywhere. Raises LongMambaError when this Python's SQLite lacks FTS5, DiskError
    when a text that is not held finds no room for it.
    """

    def __init__(self, document: Text, file: Path | None = None) -> None:
        self._document, self._file = document, file
        self._lock = threading.Lock()
        self._opened: tuple[sqlite3.Connection, PlaceMap] | None = None

    def places(self, should_stop: Stop | None = None) -> PlaceMap:
        """The pages and chapters. Raises StoppedError while the index is built."""
        with self._lock:
            return self._open(should_stop)[1]

    def search(
        self, question: str, answer: str, limit: int = 3, *, end: int | None = None, should_stop: Stop | None = None
    ) -> tuple[Passage, ...]:
        """The `limit` most related passages: quotes first, then by the question's rare words in them.

        Nothing that stands behind character `end` is known. Raises StoppedError while the index is built.
        """
        asked = _words(question)
        told = _words(answer)
        telling = [word for word in asked if word not in _COMMON] or asked
        with self._lock:
            database, places = self._open(should_stop)
            total = _count(database, end)
            rows = _candidates(database, telling, told, total)
            weights = _rarity(database, telling, total)
            texts = {row: self._text(database, row, end) for row in rows}
        wanted = {_fold(word) for word in (*asked, *told)}
        verbatim = _verbatim(answer, told)
        scored: list[tuple[bool, float, int, int]] = []
        for row, (_, text) in texts.items():
            present = _folded_words(text)
            if row == total and end is not None and not wanted & present:
                continue  # what was found in it stands behind the end
            quoted = verbatim is not None and verbatim.search(_plain(text)) is not None
            overlap = sum(weight for word, weight in weights.items() if word in present)
            scored.append((not quoted, -overlap, len(scored), row))
        best: dict[str, tuple[int, bool]] = {}  # what stands in the text twice is shown once
        for unquoted, _, _, row in sorted(scored):
            best.setdefault(texts[row][1], (row, not unquoted))
        return tuple(
            _passage(row, *texts[row], places, quoted=quoted) for row, quoted in list(best.values())[: max(limit, 0)]
        )

    def not_in_text(self, answer: str, *, end: int | None = None, should_stop: Stop | None = None) -> tuple[str, ...]:
        """The numbers and codes of an answer, each once, that stand nowhere before character `end`, word for word.

        Raises StoppedError while the index is built.
        """
        codes = _codes(answer)
        if not codes:
            return ()
        with self._lock:
            database, _ = self._open(should_stop)
            last = _count(database, end)
            return tuple(code for code in codes if not self._stands(database, code, last, end))

    def best(self, question: str, limit: int) -> tuple[Passage, ...]:
        """The `limit` passages most related to a question, in the document's order: what to read again before it."""
        return tuple(sorted(self.search(question, "", limit), key=lambda passage: passage.start))

    def _open(self, should_stop: Stop | None) -> tuple[sqlite3.Connection, PlaceMap]:
        if self._opened is None:
            database = open_index(self._document, self._file, should_stop)
            self._opened = database, place_map(database, self._document)
        return self._opened

    def _stands(self, database: sqlite3.Connection, code: str, last: int, end: int | None) -> bool:
        """Whether one of the passages up to number `last` has a code, word for word."""
        written = _standing_alone(_plain(code))
        rows = _matching(database, f'"{" ".join(_WORD.findall(code))}"', last)
        return any(written.search(_plain(self._text(database, row, end)[1])) for row in rows)

    def _text(self, database: sqlite3.Connection, number: int, end: int | None) -> tuple[int, str]:
        """Where a passage begins, and its text up to character `end`."""
        start, stop = database.execute("SELECT start, end FROM spans WHERE number = ?", (number,)).fetchone()
        return start, text_between(self._document, start, stop if end is None else min(stop, end))


def _count(database: sqlite3.Connection, end: int | None) -> int:
    """How many passages begin before character `end`."""
    if end is None:
        query = database.execute("SELECT max(number) FROM spans")
    else:
        query = database.execute("SELECT count(*) FROM spans WHERE start < ?", (end,))
    return int(query.fetchone()[0] or 0)


def _candidates(database: sqlite3.Connection, asked: list[str], told: list[str], last: int) -> list[int]:
    """Passages up to number `last` with all of the answer's words, then those with any word, each by bm25."""
    queries = []
    if told:
        queries.append(f"({_join(told, 'AND')}) AND ({_join([*told, *asked], 'OR')})")
    if asked or told:
        telling = [word for word in told if word not in _COMMON]
        queries.append(_join([*asked, *telling] or told, "OR"))
    rows: dict[int, None] = {}
    for query in queries:
        rows.update(dict.fromkeys(_matching(database, query, last)))
    return list(rows)


def _matching(database: sqlite3.Connection, query: str, last: int) -> list[int]:
    """The best of the passages up to number `last` for an FTS5 query."""
    found = database.execute(
        "SELECT rowid FROM passages WHERE passages MATCH ? AND rowid <= ? ORDER BY rank LIMIT ?",
        (query, last, _CANDIDATES),
    )
    return [row for (row,) in found]


def _rarity(database: sqlite3.Connection, words: list[str], total: int) -> dict[str, float]:
    """Each word's folded form -> its inverse document frequency among `total` passages, as in bm25."""
    weights = {}
    for word in map(_fold, words):
        row = database.execute("SELECT doc FROM terms WHERE term = ?", (word,)).fetchone()
        count = min(row[0], total) if row else 0
        weights[word] = math.log(1 + (total - count + 0.5) / (count + 0.5))
    return weights


def _passage(number: int, start: int, text: str, places: PlaceMap, *, quoted: bool) -> Passage:
    return Passage(number, start, start + len(text), text, places.chapter_at(start), quoted, places.at(start))


def _words(text: str) -> list[str]:
    """The distinct words of a question or answer, small letters, in order, at most `_MOST_WORDS`."""
    words = (match[0].lower() for match in _WORD.finditer(unicodedata.normalize("NFC", text)))
    return list(dict.fromkeys(word for word in words if len(word) <= 64))[:_MOST_WORDS]


def _join(words: Iterable[str], operator: str) -> str:
    """Words -> an FTS5 query in which every word is a quoted string: no text of a user's is ever syntax."""
    return f" {operator} ".join('"' + word.replace('"', '""') + '"' for word in words)


def _fold(word: str) -> str:
    """As the index's tokenizer folds: no diacritics, small letters."""
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c)).lower()


def _folded_words(text: str) -> set[str]:
    return {_fold(match[0]) for match in _WORD.finditer(text)}


def _plain(text: str) -> str:
    """Text for comparing word for word: one form of every character, no case, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def _verbatim(answer: str, words: list[str]) -> re.Pattern[str] | None:
    """What a passage must hold to be a quote; None when the answer says nothing ("Yes.", "It is not.")."""
    plain = _plain(answer).strip(_AROUND)
    if not plain or all(word in _COMMON for word in words):
        return None
    return _standing_alone(plain)


def _standing_alone(plain: str) -> re.Pattern[str]:
    """Finds this as whole words in what `_plain` gives."""
    return re.compile(rf"(?<!\w){re.escape(plain)}(?!\w)")


def _codes(answer: str) -> list[str]:
    """What has a digit in it, without what stands around it: "It is (A-113)." -> A-113."""
    text = _ENUMERATOR.sub("", unicodedata.normalize("NFC", answer))
    found = (match[0].strip(_AROUND + _UNITS) for match in _CODE.finditer(text))
    return list(dict.fromkeys(code for code in found if code))[:_MOST_WORDS]
