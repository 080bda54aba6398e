"""Conversations kept in SQLite: every finished exchange is in the file before the next question.

One short-lived connection per call, so any thread may call; write-ahead logging, so two chats can be open.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from longmamba_mlx.errors import DiskError, LongMambaError
from longmamba_mlx.paths import private_file, private_folder
from longmamba_mlx.tui.history.records import Exchange
from longmamba_mlx.tui.rendering.safe_text import one_line

# Entry n brings a file of version n to version n + 1 (PRAGMA user_version).
_MIGRATIONS = (
    (
        "CREATE TABLE talks(id INTEGER PRIMARY KEY, title TEXT NOT NULL, document TEXT NOT NULL, paths TEXT NOT NULL,"
        " model TEXT NOT NULL, begun REAL NOT NULL, updated REAL NOT NULL)",
        "CREATE TABLE exchanges(talk INTEGER NOT NULL REFERENCES talks(id) ON DELETE CASCADE,"
        " position INTEGER NOT NULL, question TEXT NOT NULL, answer TEXT NOT NULL, record TEXT NOT NULL,"
        " PRIMARY KEY (talk, position))",
        "CREATE TABLE settings(name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    ),
)
_BUSY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation in the list. `paths`: the files it is about; `updated`: seconds since the epoch."""

    id: int
    title: str
    document: str
    paths: tuple[str, ...]
    model: str
    updated: float
    exchanges: int


class ConversationStore:
    """The file at `path`, made with its folder when something is first written. All methods raise DiskError."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock

    def begin(self, title: str, document: str, paths: Sequence[str], model: str) -> int:
        """Add a conversation; returns its number."""
        now = self._clock()
        row = (one_line(title), one_line(document), json.dumps(list(paths)), one_line(model), now, now)
        with self._database() as database:
            added = database.execute(
                "INSERT INTO talks(title, document, paths, model, begun, updated) VALUES (?, ?, ?, ?, ?, ?)", row
            )
            return int(added.lastrowid or 0)

    def put(self, conversation: int, position: int, exchange: Exchange) -> None:
        """Save the exchange at `position` of a conversation; one deleted meanwhile stays deleted."""
        record = json.dumps(exchange.as_json(), ensure_ascii=False)
        row = (conversation, position, one_line(exchange.question), exchange.text, record)
        with self._database() as database, suppress(sqlite3.IntegrityError):
            database.execute("INSERT OR REPLACE INTO exchanges VALUES (?, ?, ?, ?, ?)", row)
            database.execute("UPDATE talks SET updated = ? WHERE id = ?", (self._clock(), conversation))

    def conversations(self, search: str = "", limit: int = 200) -> list[Conversation]:
        """The newest first; `search`: words that occur in the title, the document's name, a question or an answer."""
        wanted = " AND ".join([_MATCHES] * len(search.split())) or "1"
        patterns = [f"%{_literally(word)}%" for word in search.split() for _ in range(_MATCHES.count("?"))]
        query = (
            "SELECT id, title, document, paths, model, updated,"  # noqa: S608 - no text of a user's is in the query
            " (SELECT count(*) FROM exchanges WHERE talk = id)"
            f" FROM talks WHERE {wanted} ORDER BY updated DESC, id DESC LIMIT ?"
        )
        with self._database() as database:
            return [_conversation(row) for row in database.execute(query, (*patterns, limit))]

    def load(self, conversation: int) -> list[Exchange]:
        """The exchanges of a conversation, in order, without records that cannot be parsed."""
        with self._database() as database:
            rows = database.execute(
                "SELECT record FROM exchanges WHERE talk = ? ORDER BY position", (conversation,)
            ).fetchall()
        exchanges = []
        for (record,) in rows:
            with suppress(KeyError, TypeError, ValueError, AttributeError, RecursionError):
                exchanges.append(Exchange.from_json(json.loads(record)))
        return exchanges

    def latest_about(self, paths: Sequence[str]) -> Conversation | None:
        """The last conversation that began with exactly these files; more may have been added to it."""
        wanted = tuple(paths)
        began = (found for found in self.conversations() if found.exchanges and found.paths[: len(wanted)] == wanted)
        return next(began, None)

    def set_document(self, conversation: int, document: str, paths: Sequence[str]) -> None:
        """Change the document that a conversation is about."""
        row = one_line(document), json.dumps(list(paths)), conversation
        with self._database() as database:
            database.execute("UPDATE talks SET document = ?, paths = ? WHERE id = ?", row)

    def rename(self, conversation: int, title: str) -> None:
        """Give a conversation another title."""
        with self._database() as database:
            database.execute("UPDATE talks SET title = ? WHERE id = ?", (one_line(title), conversation))

    def delete(self, conversation: int) -> None:
        """Delete a conversation."""
        with self._database() as database:
            database.execute("DELETE FROM talks WHERE id = ?", (conversation,))

    def questions(self, limit: int = 200) -> list[str]:
        """The latest questions, the oldest first, each once."""
        query = "SELECT json_extract(record, '$.question'), max(talk * 1000000 + position) AS place FROM exchanges"
        with self._database() as database:
            rows = database.execute(f"{query} GROUP BY 1 ORDER BY place DESC LIMIT ?", (limit,)).fetchall()
        return [str(question) for question, _ in reversed(rows) if question]

    def setting(self, name: str) -> str | None:
        """A saved setting, None when there is none."""
        with self._database() as database:
            row = database.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set(self, name: str, value: str) -> None:
        """Save a setting."""
        with self._database() as database:
            database.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """A connection in one transaction: whatever is done with it is in the file as a whole or not at all."""
        private_folder(self._path.parent)
        with suppress(OSError):  # SQLite tells why; the files it adds beside this one take over the mode
            private_file(self._path)
        try:
            with closing(sqlite3.connect(self._path, timeout=_BUSY_SECONDS)) as database:
                database.text_factory = _text
                _migrate(database)
                with database:
                    yield database
        except (sqlite3.Error, UnicodeDecodeError) as error:  # an error that quotes a damaged schema cannot be decoded
            hint = f"{_advice(error, self._path.parent)}; the chat continues without."
            reason = one_line(str(error)) if isinstance(error, sqlite3.Error) else "its tables are damaged"
            raise DiskError(f"The sessions in {self._path} cannot be used: {reason}.", hint=hint) from None


# One `?` per column: a word has to stand in one of them.
_MATCHES = (
    "(title LIKE ? ESCAPE '\\' OR document LIKE ? ESCAPE '\\' OR EXISTS (SELECT 1 FROM exchanges WHERE talk = id"
    " AND (question LIKE ? ESCAPE '\\' OR answer LIKE ? ESCAPE '\\')))"
)


def _advice(error: Exception, folder: Path) -> str:
    """A hint for a database that cannot be used."""
    kind = getattr(error, "sqlite_errorname", None) or ""
    if kind.startswith("SQLITE_FULL"):
        return f"Free some space on the disk that holds {folder}"
    if kind.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_IOERR")):
        return f"Make the folder {folder} writable, or set LONGMAMBA_HOME to another one"
    return "Move the file away to start with an empty list"


def _migrate(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA foreign_keys = ON")
    if _version(database) == len(_MIGRATIONS):
        return
    if _version(database) > len(_MIGRATIONS):
        raise LongMambaError(
            "The sessions were kept by a newer longmamba-mlx.", hint="Update it; nothing was changed in the file."
        )
    _log_ahead(database)
    with database:
        database.execute("BEGIN IMMEDIATE")  # another chat may be doing the same
        for statements in _MIGRATIONS[_version(database) :]:
            for statement in statements:
                database.execute(statement)
        database.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")


def _log_ahead(database: sqlite3.Connection) -> None:
    """Switch to write-ahead logging. SQLite ignores the busy timeout here, so this retries."""
    ends = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > ends:
                raise
            time.sleep(0.01)


def _version(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _literally(word: str) -> str:
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _conversation(row: tuple[int, str, str, str, str, float, int]) -> Conversation:
    number, title, document, paths, model, updated, exchanges = row
    try:
        files = tuple(str(path) for path in json.loads(paths))
    except (TypeError, ValueError, RecursionError):
        files = ()
    title, document, model = (one_line(str(text)) for text in (title, document, model))
    when = float(updated) if isinstance(updated, int | float) and math.isfinite(updated) else 0.0
    return Conversation(number, title, document, files, model, when, exchanges)


def _text(data: bytes) -> str:
    """A text of the database; a damaged one shows where."""
    return data.decode("utf-8", "replace")
