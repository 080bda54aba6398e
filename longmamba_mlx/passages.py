"""Related passages, found after the answer: a state cannot point to its source, a full-text index can.

An in-memory SQLite FTS5 index over the paragraphs. What it finds is *related*; only a passage in which the
answer stands word for word is a quote.
"""

from __future__ import annotations

import math
import re
import sqlite3
import threading
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from longmamba_mlx.documents import Document
from longmamba_mlx.errors import LongMambaError

_WORD = re.compile("[^\\W_](?:[^\\W_]|[\u0300-\u036f])*")
_MOST_WORDS = 64
_CANDIDATES = 100
# Words that say nothing about a place. A question made of nothing else is searched with them.
_FUNCTION_WORDS = """
a about an and any are as at be been but by can could did do does for from had has have he her him his how i
if in into is it its me my no not of on or our she should so some such than that the their them then there
these they this those to was we were what when where which who whom whose why will with would yes you your
"""
_COMMON = frozenset(_FUNCTION_WORDS.split())


@dataclass(frozen=True, slots=True)
class Passage:
    """A paragraph related to an answer: `text` is the document's text[start:end], in characters.

    `number` counts paragraphs from 1; `heading` is the chapter ("" if none); `quoted`: the answer stands in
    it, word for word; `place` is where it stands ("page 12", "Chapter 3", "" if nothing tells).
    """

    number: int
    start: int
    end: int
    text: str
    heading: str
    quoted: bool
    place: str = ""


class PassageIndex:
    """Full-text index over a document's paragraphs, built on the first search; usable from any thread.

    Raises LongMambaError when this Python's SQLite lacks FTS5.
    """

    def __init__(self, document: Document) -> None:
        self._document = document
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None

    def search(self, question: str, answer: str, limit: int = 3) -> tuple[Passage, ...]:
        """The `limit` most related passages: quotes first, then by the question's rare words in them."""
        asked = _words(question)
        told = _words(answer)
        telling = [word for word in asked if word not in _COMMON] or asked
        with self._lock:
            database = self._open()
            rows = self._candidates(database, telling, told)
            weights = self._rarity(database, telling)
        verbatim = _verbatim(answer, told)
        scored: list[tuple[bool, float, int, int]] = []
        for row in rows:
            text = self._text(row)
            present = _folded_words(text)
            quoted = verbatim is not None and verbatim.search(_plain(text)) is not None
            overlap = sum(weight for word, weight in weights.items() if word in present)
            scored.append((not quoted, -overlap, len(scored), row))
        best: dict[str, tuple[int, bool]] = {}  # what stands in the text twice is shown once
        for unquoted, _, _, row in sorted(scored):
            best.setdefault(self._text(row), (row, not unquoted))
        return tuple(self._passage(row, quoted=quoted) for row, quoted in list(best.values())[: max(limit, 0)])

    def best(self, question: str, limit: int) -> tuple[Passage, ...]:
        """The `limit` passages most related to a question, in the document's order: what to read again before it."""
        return tuple(sorted(self.search(question, "", limit), key=lambda passage: passage.start))

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            database = sqlite3.connect(":memory:", check_same_thread=False)
            try:
                # content='': the text is at hand already, the index alone is a third of its size.
                database.execute(
                    "CREATE VIRTUAL TABLE passages"
                    " USING fts5(body, content='', tokenize='unicode61 remove_diacritics 2')"
                )
                database.execute("CREATE VIRTUAL TABLE terms USING fts5vocab(passages, 'row')")
            except sqlite3.OperationalError as error:
                database.close()
                raise LongMambaError(
                    f"Related passages need SQLite's FTS5, which this Python lacks ({error}).",
                    hint="Install Python from python.org, Homebrew or uv: their SQLite has it.",
                ) from None
            text = self._document.text
            database.executemany(
                "INSERT INTO passages(rowid, body) VALUES (?, ?)",
                enumerate((text[start:end] for start, end in self._document.paragraphs.spans()), 1),
            )
            self._database = database
        return self._database

    def _candidates(self, database: sqlite3.Connection, asked: list[str], told: list[str]) -> list[int]:
        """Paragraphs with all of the answer's words, then those with any word, each by bm25."""
        queries = []
        if told:
            queries.append(f"({_join(told, 'AND')}) AND ({_join([*told, *asked], 'OR')})")
        if asked or told:
            telling = [word for word in told if word not in _COMMON]
            queries.append(_join([*asked, *telling] or told, "OR"))
        rows: dict[int, None] = {}
        for query in queries:
            found = database.execute(
                "SELECT rowid FROM passages WHERE passages MATCH ? ORDER BY rank LIMIT ?",
                (query, _CANDIDATES),
            )
            rows.update(dict.fromkeys(row for (row,) in found))
        return list(rows)

    def _rarity(self, database: sqlite3.Connection, words: list[str]) -> dict[str, float]:
        """Each word's folded form -> its inverse document frequency, as in bm25."""
        total = len(self._document.paragraphs)
        weights = {}
        for word in map(_fold, words):
            row = database.execute("SELECT doc FROM terms WHERE term = ?", (word,)).fetchone()
            count = row[0] if row else 0
            weights[word] = math.log(1 + (total - count + 0.5) / (count + 0.5))
        return weights

    def _text(self, number: int) -> str:
        paragraph = self._document.paragraphs[number - 1]
        return self._document.text[paragraph.start : paragraph.end]

    def _passage(self, number: int, *, quoted: bool) -> Passage:
        paragraph = self._document.paragraphs[number - 1]
        text, place = self._text(number), self._document.place_at(paragraph.start)
        return Passage(number, paragraph.start, paragraph.end, text, paragraph.heading, quoted, place)


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
    plain = _plain(answer).strip(" .,;:!?\"'“”‘’«»()[]*_`")
    if not plain or all(word in _COMMON for word in words):
        return None
    return re.compile(rf"(?<!\w){re.escape(plain)}(?!\w)")
