"""Build, store and check the full-text index of a document's passages, one SQLite file.

Its tables: `passages`, FTS5 without the text, one row per passage; `terms`, its words; `spans`, where passages begin
and end; `places`, the pages and chapters; `about`, which text it was made from. The last page is followed by the
SHA-256 of everything before it (SQLite takes its size from its header), so that any changed bit is detected.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from urllib.parse import quote

from longmamba_mlx.documents import READER_VERSION, Place
from longmamba_mlx.documents.blocks import Run, Stretch, cut, runs, stretches
from longmamba_mlx.documents.places import PlaceMap
from longmamba_mlx.documents.streamed_text import LargeText, Text, length_of
from longmamba_mlx.errors import DiskError, LongMambaError, StoppedError
from longmamba_mlx.ground.steps import Stop
from longmamba_mlx.paths import private_folder
from longmamba_mlx.storage.atomic import sweep, write_atomic

VERSION = 1  # incremented whenever the same text gets another index
_TABLES = """
CREATE VIRTUAL TABLE passages USING fts5(body, content='', tokenize='unicode61 remove_diacritics 2');
CREATE VIRTUAL TABLE terms USING fts5vocab(passages, 'row');
CREATE TABLE spans(number INTEGER PRIMARY KEY, start INTEGER, end INTEGER);
CREATE TABLE places(start INTEGER, kind TEXT, label TEXT, number INTEGER, level INTEGER);
CREATE TABLE about(text TEXT);
"""
_DIGEST_SIZE = hashlib.sha256().digest_size
_ASK_AFTER = 1000  # passages between two calls of `should_stop`
_AGAIN = "The same command indexes them again."
_ROOM = "Free some space where temporary files go, or set TMPDIR to another folder."


def open_index(document: Text, file: Path | None, should_stop: Stop | None = None) -> sqlite3.Connection:
    """Open a document's index: the one in `file` if it is intact and of this document, else a new one, stored there.

    Without a file, or when it cannot be written, the index lasts as long as the connection: in memory, or in a
    temporary file for a text that is not held in memory.

    Raises StoppedError; DiskError; LongMambaError if SQLite lacks FTS5.
    """
    if file is not None:
        if (stored := _stored(document, file)) is not None:
            return stored
        with suppress(DiskError):
            private_folder(file.parent)
            sweep(file.parent)
            write_atomic(file, lambda draft: _write(document, draft, should_stop))
        if (stored := _stored(document, file)) is not None:
            return stored
    database = sqlite3.connect("" if isinstance(document, LargeText) else ":memory:", check_same_thread=False)
    try:
        _fill(database, document, should_stop)
    except sqlite3.OperationalError as error:
        raise DiskError(f"There is no room for the index of passages: {error}.", hint=_ROOM) from None
    return database


def place_map(database: sqlite3.Connection, document: Text) -> PlaceMap:
    """The pages and chapters stored in a document's index."""
    places = [Place(*row) for row in database.execute("SELECT * FROM places ORDER BY rowid")]
    length = length_of(document)
    files = [(0, length)] if isinstance(document, LargeText) else [(part.start, part.end) for part in document.parts]
    return PlaceMap(places, files, length)


def _stored(document: Text, file: Path) -> sqlite3.Connection | None:
    if not _is_whole(file):
        return None
    database = None
    try:
        database = sqlite3.connect(f"file:{quote(str(file))}?mode=ro&immutable=1", uri=True, check_same_thread=False)
        if database.execute("SELECT text FROM about").fetchone() == (_about(document),):
            return database
    except sqlite3.Error:
        pass
    if database is not None:
        database.close()
    return None


def _is_whole(file: Path) -> bool:
    """Whether the digest at the end of the file matches everything before it."""
    digest = hashlib.sha256()
    try:
        with open(file, "rb") as stream:
            left = stream.seek(0, os.SEEK_END) - _DIGEST_SIZE
            stream.seek(0)
            while left > 0 and (block := stream.read(min(left, 1 << 20))):
                digest.update(block)
                left -= len(block)
            return stream.read() == digest.digest()
    except (OSError, ValueError):
        return False


def _write(document: Text, draft: Path, should_stop: Stop | None) -> None:
    database = sqlite3.connect(draft)
    try:
        # A draft is private and discarded when incomplete: no journal is needed.
        database.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA locking_mode=EXCLUSIVE;")
        _fill(database, document, should_stop)
    except sqlite3.OperationalError as error:
        raise OSError(None, str(error)) from None  # "database or disk is full"
    finally:
        database.close()
    with open(draft, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    with open(draft, "ab") as file:
        file.write(digest)


def _fill(database: sqlite3.Connection, document: Text, should_stop: Stop | None) -> None:
    """Fill an empty database. Raises StoppedError; sqlite3.OperationalError for a full disk; LongMambaError."""
    try:
        database.executescript(_TABLES)
    except sqlite3.OperationalError as error:
        if "fts5" not in str(error):
            raise
        raise LongMambaError(
            f"Related passages need SQLite's FTS5, which this Python lacks ({error}).",
            hint="Install Python from python.org, Homebrew or uv: their SQLite has it.",
        ) from None
    with database:
        if isinstance(document, LargeText):
            from longmamba_mlx.documents.headings import find_chapters

            text = _added(database, runs(stretches(document.pieces())), should_stop)
            places = find_chapters(text, document.length)
        else:
            text = _added(database, runs([Stretch(document.text, 0, len(document.text))]), should_stop)
            places = document.places
        deque(text, maxlen=0)  # the rest, which `find_chapters` did not consume
        database.executemany("INSERT INTO places VALUES (?, ?, ?, ?, ?)", map(astuple, places))
        database.execute("INSERT INTO about VALUES (?)", (_about(document),))


def _added(database: sqlite3.Connection, text: Iterator[Run], should_stop: Stop | None) -> Iterator[Run]:
    """Yield the same runs, adding their passages to the index."""
    number = 0
    for run in text:
        for start, end in cut(run.text, run.start, run.end):
            number += 1
            database.execute("INSERT INTO passages(rowid, body) VALUES (?, ?)", (number, run.text[start:end]))
            database.execute("INSERT INTO spans VALUES (?, ?, ?)", (number, run.offset + start, run.offset + end))
            if should_stop is not None and number % _ASK_AFTER == 0 and should_stop():
                raise StoppedError("Stopped while the passages were indexed.", hint=_AGAIN)
        yield run


def _about(document: Text) -> str:
    """Everything that an index depends on: the same text may come from other files, or with other chapters."""
    parts = () if isinstance(document, LargeText) else document.parts
    titles = [part.title for part in parts] if len(parts) > 1 else []
    plain = len(parts) <= 1 and not any(part.marks for part in parts)
    bounds = [] if plain else [(part.start, part.end, *map(astuple, part.marks)) for part in parts]
    return json.dumps([VERSION, READER_VERSION, document.digest, titles, bounds])
