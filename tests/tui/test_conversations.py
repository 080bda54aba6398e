"""Talks in SQLite: what was said comes back, the file survives what happens to files."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longmamba_mlx.errors import DiskError, LongMambaError
from longmamba_mlx.events import Answer
from longmamba_mlx.retrieval.passages import Passage
from longmamba_mlx.tui.history.records import Exchange, How, Reply, Stage
from longmamba_mlx.tui.history.store import ConversationStore
from tests.tui.helpers import control_characters

ROOT = Path(__file__).resolve().parents[2]


def exchange(question: str = "Who?", text: str = "It is Ahab.", mark: str = "") -> Exchange:
    passage = Passage(7, 3, 9, "He is Ahab.", "Chapter 1", True, "page 12")
    answer = Answer(question, text, True, (passage,), 4, 0.5, "stop")
    return Exchange(question, How(as_of="chapter 3"), "digest", Stage.DONE, [Reply("", text, mark, answer)])


class Clock:
    """Seconds since the epoch, one more at every look."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> ConversationStore:
    return ConversationStore(tmp_path / "data" / "talks.sqlite", Clock())


def same(one: Exchange, other: Exchange) -> bool:
    return one.as_json() == other.as_json() and other.stage is Stage.DONE


def test_a_talk_comes_back_as_it_was(store: ConversationStore) -> None:
    talk = store.begin("Ahab", "moby.txt", ("/books/moby.txt",), "demo")
    said = [exchange(), exchange("Why?", "Hate.", "stopped"), Exchange("Never asked?", stage=Stage.DONE)]
    for position, each in enumerate(said):
        store.put(talk, position, each)
    store.put(talk, 1, said[1])  # the same place again is the same exchange
    back = store.load(talk)
    assert len(back) == 3 and all(map(same, said, back))
    assert back[0].replies[0].answer == said[0].replies[0].answer and back[0].how == How(as_of="chapter 3")
    (listed,) = store.conversations()
    assert (listed.title, listed.document, listed.paths, listed.model) == (
        "Ahab",
        "moby.txt",
        ("/books/moby.txt",),
        "demo",
    )
    assert listed.exchanges == 3


def test_the_newest_is_first_and_search_looks_everywhere(store: ConversationStore) -> None:
    whale = store.begin("First", "moby.txt", ("/m",), "demo")
    store.put(whale, 0, exchange("Who hunts 100% of_it?", "The captain."))
    tea = store.begin("Tea party", "alice.txt", ("/a",), "demo")
    store.put(tea, 0, exchange("Who pours?", "The hatter."))
    assert [talk.id for talk in store.conversations()] == [tea, whale]
    store.put(whale, 1, exchange())
    assert [talk.id for talk in store.conversations()] == [whale, tea]
    found = {
        words: [talk.id for talk in store.conversations(words)]
        for words in ("PARTY", "moby", "captain", "hatter pours")
    }
    assert found == {"PARTY": [tea], "moby": [whale], "captain": [whale], "hatter pours": [tea]}
    assert [talk.id for talk in store.conversations("100% of_it")] == [whale]
    assert (
        store.conversations("of%it")
        == store.conversations("hatter captain")
        == store.conversations("'; DROP TABLE talks")
        == []
    )
    assert len(store.conversations(limit=1)) == 1


def test_rename_delete_and_what_is_said_after_a_delete(store: ConversationStore) -> None:
    talk = store.begin("One", "moby.txt", (), "demo")
    store.put(talk, 0, exchange())
    store.rename(talk, "Two\nlines\x1b[2J")
    assert store.conversations()[0].title == "Two lines[2J"
    store.delete(talk)
    store.put(talk, 1, exchange())
    assert store.conversations() == [] and store.load(talk) == []


def test_the_latest_talk_about_files_and_the_questions_of_all(store: ConversationStore) -> None:
    assert store.latest_about(("/m",)) is None and store.questions() == []
    empty = store.begin("Empty", "moby.txt", ("/m",), "demo")
    assert store.latest_about(("/m",)) is None
    store.put(empty, 0, exchange("a?"))
    store.put(empty, 1, exchange("b?"))
    other = store.begin("Other", "both", ("/m", "/n"), "demo")
    store.put(other, 0, exchange("a?"))
    latest = store.latest_about(("/m",))
    assert latest is not None and latest.id == other  # the files it began with; more were added
    assert store.questions() == ["b?", "a?"] and store.questions(1) == ["a?"]


def test_settings_are_kept(store: ConversationStore) -> None:
    assert store.setting("theme") is None
    store.set("theme", "nord")
    store.set("theme", "mamba-light")
    assert store.setting("theme") == "mamba-light"


def test_the_file_is_the_users_own_and_in_write_ahead_mode(store: ConversationStore, tmp_path: Path) -> None:
    store.set("a", "b")
    path = tmp_path / "data" / "talks.sqlite"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_newer_file_is_left_alone_and_a_broken_one_is_one_line(store: ConversationStore, tmp_path: Path) -> None:
    store.set("a", "b")
    path = tmp_path / "data" / "talks.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(LongMambaError, match="newer longmamba-mlx"):
        store.conversations()
    for left in path.parent.iterdir():
        left.unlink()
    path.write_bytes(b"this is no database, and long enough to be looked at" * 50)
    with pytest.raises(DiskError, match="cannot be used"):
        store.conversations()


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("SQLITE_FULL", "Free some space"),
        ("SQLITE_CANTOPEN", "writable, or set LONGMAMBA_HOME"),
        ("SQLITE_READONLY_DBMOVED", "writable, or set LONGMAMBA_HOME"),
        ("SQLITE_NOTADB", "Move the file away"),
    ],
)
def test_the_advice_fits_what_went_wrong(
    store: ConversationStore, monkeypatch: pytest.MonkeyPatch, name: str, advice: str
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        error = sqlite3.OperationalError("it failed")
        error.sqlite_errorname = name
        raise error

    monkeypatch.setattr(sqlite3, "connect", fail)
    with pytest.raises(DiskError, match="it failed") as caught:
        store.conversations()
    assert advice in str(caught.value.hint) and "the chat continues without" in str(caught.value.hint)


def test_records_that_cannot_be_understood_are_left_out(store: ConversationStore, tmp_path: Path) -> None:
    talk = store.begin("One", "moby.txt", (), "demo")
    for position in range(5):
        store.put(talk, position, exchange())
    with sqlite3.connect(tmp_path / "data" / "talks.sqlite") as database:
        for position, record in enumerate(
            ("{", "[]", '{"question": "q"}', '{"question":"q","how":{"x":1},"answers":[]}')
        ):
            database.execute("UPDATE exchanges SET record = ? WHERE position = ?", (record, position))
        database.execute("UPDATE talks SET paths = 'no list'")
    assert len(store.load(talk)) == 1 and store.conversations()[0].paths == ()


@given(st.text(max_size=50), st.text(max_size=50), st.text(max_size=50))
@settings(max_examples=60, deadline=None)
def test_whatever_was_said_comes_back_without_control_characters(question: str, text: str, mark: str) -> None:
    back = Exchange.from_json(exchange(question, text, mark).as_json())
    shown = "".join([back.question, back.text, back.replies[0].mark])
    assert control_characters(shown.replace("\t", "")) == set()
    assert same(back, Exchange.from_json(back.as_json()))


def test_processes_that_begin_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from longmamba_mlx.tui.history.store import ConversationStore\n"
        "from longmamba_mlx.tui.history.records import Exchange, Stage\n"
        "store = ConversationStore(Path(sys.argv[1])); talk = store.begin('t', 'd', (), 'm')\n"
        "for n in range(20): store.put(talk, n, Exchange(f'{n}?', stage=Stage.DONE))\n"
    )
    path = tmp_path / "talks.sqlite"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    runs = [subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, env=environment) for _ in range(3)]
    assert [run.wait(60) for run in runs] == [0, 0, 0]
    assert [talk.exchanges for talk in ConversationStore(path).conversations()] == [20, 20, 20]


def test_a_file_that_another_process_begins_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "talks.sqlite"
    with closing(sqlite3.connect(path, check_same_thread=False)) as other:
        other.execute("CREATE TABLE other(x)")
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.3, other.commit).start()
        assert ConversationStore(path).begin("t", "d", (), "m") == 1


def test_killed_while_it_writes_keeps_every_exchange_that_was_told_to_be_kept(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from longmamba_mlx.tui.history.store import ConversationStore\n"
        "from longmamba_mlx.tui.history.records import Exchange, Stage\n"
        "store = ConversationStore(Path(sys.argv[1])); talk = store.begin('t', 'd', (), 'm')\n"
        "for n in range(100000):\n"
        "    store.put(talk, n, Exchange(f'{n}?' * 500, stage=Stage.DONE)); print(n, flush=True)\n"
    )
    path = tmp_path / "talks.sqlite"
    run = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert run.stdout
    told = [int(run.stdout.readline()) for _ in range(30)]
    run.kill()
    told += [int(line) for line in run.stdout.read().split("\n")[:-1]]
    run.wait()
    (talk,) = ConversationStore(path).conversations()
    assert talk.exchanges > told[-1]
    assert [each.question[:2] for each in ConversationStore(path).load(talk.id)][:10] == [f"{n}?" for n in range(10)]


@pytest.mark.parametrize(
    "value", [None, -1, 1e308, float("inf"), b"\xff\0", "[" * 99_999, "\x1b[2J", "null", "[[]]", "{}"]
)
def test_a_damaged_conversation_is_shown_as_far_as_it_goes(value: object, tmp_path: Path) -> None:
    store, file = ConversationStore(tmp_path / "talks.sqlite"), tmp_path / "talks.sqlite"
    number = store.begin("title", "document", ["/book.txt"], "demo")
    store.put(number, 0, Exchange("who?"))
    for column in ("title", "document", "paths", "model", "begun", "updated"):
        with closing(sqlite3.connect(file)) as database, database, suppress(sqlite3.IntegrityError):
            database.execute(f"UPDATE talks SET {column} = ?", (value,))
    (found,) = store.conversations()
    assert all(text.isprintable() for text in (found.title, found.document, found.model))
    assert isinstance(found.updated, float) and len(store.load(number)) == 1
    sound = json.dumps(Exchange("who?").as_json())
    for record in (
        value,
        sound[:-1],
        "[]",
        "3",
        sound.replace('"reread": 0', '"reread": "x"'),
        f'{{"a": {"9" * 5000}}}',
    ):
        with closing(sqlite3.connect(file)) as database, database, suppress(sqlite3.IntegrityError):
            database.execute("UPDATE exchanges SET record = ?", (record,))
        assert store.load(number) == [] or record is None  # a column that must not be NULL keeps what it has


def test_a_schema_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "talks.sqlite"
    ConversationStore(file).begin("title", "document", [], "demo")
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    file.write_bytes(file.read_bytes().replace(b"TABLE talks(id", b"TABLE ta\xbb\xfes(id"))
    with pytest.raises(DiskError, match="cannot be used") as caught:
        ConversationStore(file).conversations()
    assert str(caught.value).isprintable()
