"""Ranks: what they store is what one process stores; where they differ, end or hang, one line says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from safetensors.numpy import load_file

from longmamba_mlx.documents import read_document
from longmamba_mlx.errors import StoppedError, UsageError
from longmamba_mlx.events import Counted, Event, Failed, Notice, ReadDone, ReadProgress
from longmamba_mlx.inference.ranks.ring import Ring
from longmamba_mlx.session.api import Model
from longmamba_mlx.session.each import open_each
from longmamba_mlx.session.open_document import open_document
from longmamba_mlx.session.ranks import hosts
from longmamba_mlx.session.ranks import watch as watching
from longmamba_mlx.session.ranks.agreement import Fact, agree, facts_of
from longmamba_mlx.session.ranks.lines import Beat, Ended, Hello, Joined, Lost, Ready, from_line, to_line
from longmamba_mlx.session.ranks.options import RankOptions
from longmamba_mlx.session.ranks.reading import read_together
from longmamba_mlx.session.ranks.sharing import read_shares, shares
from longmamba_mlx.session.ranks.watch import Watch
from longmamba_mlx.session.session import Session
from longmamba_mlx.states import checkpoints
from tests.commandline import Run, run
from tests.inference.loopback import run_ranks

__all__ = ["run"]

LINE = "The old road went along the river and the rain did not stop. "


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A text of some 4,000 tokens."""
    path = tmp_path / "book.txt"
    path.write_text(f"{LINE * 90}The access code of Zorvath is 48213. {LINE * 90}", encoding="utf-8")
    return path


def stored(home: Path) -> dict[str, bytes | dict[str, np.ndarray]]:
    """All that is in a store by name: the arrays of states, the bytes of everything else."""
    files = sorted(path for path in (home / "states").rglob("*") if path.is_file() and path.name != "limit")
    return {
        str(path.relative_to(home)): load_file(path) if path.suffix == ".safetensors" else path.name.encode()
        for path in files
    }


def assert_same_store(found: Path, expected: Path) -> None:
    ours, theirs = stored(found), stored(expected)
    assert ours.keys() == theirs.keys() and theirs
    for name, content in theirs.items():
        if isinstance(content, dict):
            mine = ours[name]
            assert isinstance(mine, dict) and mine.keys() == content.keys()
            assert all(np.array_equal(mine[part], array) for part, array in content.items()), name


def read_at_home(home: Path, monkeypatch: pytest.MonkeyPatch, events: Callable[[], Iterator[Event]]) -> list[Event]:
    monkeypatch.setenv("LONGMAMBA_HOME", str(home))
    return list(events())


@pytest.mark.parametrize("size", [2, 3])
def test_state_key_places_and_index_are_those_of_one_process(
    size: int, book: Path, demo: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "CLOSEST_PLACES", 512)
    document = read_document(book)
    alone = read_at_home(tmp_path / "one", monkeypatch, lambda: open_document(demo, document, chunk=128))
    monkeypatch.setenv("LONGMAMBA_HOME", str(tmp_path / "many"))
    first, *others = run_ranks(size, lambda ring: list(read_together(demo, document, ring, "1", chunk=128)))
    assert_same_store(tmp_path / "many", tmp_path / "one")
    assert len(list((tmp_path / "many").rglob("*.places/*.safetensors"))) == 7
    done, before = first[-1], alone[-1]
    assert isinstance(done, ReadDone) and isinstance(before, ReadDone)
    assert done.stored == before.stored is not None and not done.reopened
    assert [type(event) for event in others[0]] == [Counted]
    again = run_ranks(size, lambda ring: list(read_together(demo, document, ring, "1", chunk=128)))[0][-1]
    assert isinstance(again, ReadDone) and again.reopened
    session = Session("demo", chunk=128)  # and whoever asks finds it
    opened = list(session.open([str(book)]))[-1]
    assert isinstance(opened, ReadDone) and opened.reopened


def test_ranks_go_on_from_a_checkpoint_and_leave_one(
    book: Path, demo: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("CLOSEST_PLACES", 512), ("EVERY_TOKENS", 1), ("MOST_COST", 1e9)):
        monkeypatch.setattr(checkpoints, name, value)
    document = read_document(book)
    read_at_home(tmp_path / "one", monkeypatch, lambda: open_document(demo, document, chunk=128))
    monkeypatch.setenv("LONGMAMBA_HOME", str(tmp_path / "many"))

    def stopped(ring: Ring) -> None:
        seen = [0]
        for event in read_together(demo, document, ring, "1", chunk=128, should_stop=lambda: seen[-1] > 2500):
            if isinstance(event, ReadProgress):
                seen.append(event.done)

    with pytest.raises(StoppedError, match="stopped") as caught:
        run_ranks(2, stopped)
    assert "resumes at token" in str(caught.value.hint)
    assert list((tmp_path / "many").rglob("*.reading"))
    events = run_ranks(3, lambda ring: list(read_together(demo, document, ring, "1", chunk=128)))[0]
    assert any(isinstance(event, Notice) and "Resuming at token" in event.text for event in events)
    done = events[-1]
    assert isinstance(done, ReadDone) and done.before > 1000
    assert_same_store(tmp_path / "many", tmp_path / "one")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model", "x", "Rank 1 has another model than rank 0."),
        ("document", "x", "Rank 1 has another text than rank 0."),
        ("filter", "x", "Rank 1 has another filter than rank 0."),
        ("kernel", "x", "Rank 1 has another backend than rank 0."),
        ("version", "2", "Ranks 1 and 2 have another version of longmamba-mlx, MLX or NumPy than rank 0."),
    ],
)
def test_ranks_that_differ_are_refused_everywhere(field: str, value: str, message: str, demo: Model) -> None:
    key = demo.key("d", 9000, None, 512)
    refusals = []

    def meet(ring: Ring) -> None:
        other = ring.rank == 1 and field != "version"
        version = value if field == "version" and ring.rank else "1"
        facts = facts_of(version, replace(key, **{field: value}) if other else key)  # type: ignore[arg-type]
        try:
            agree(ring, facts, 0)
        except UsageError as error:
            assert error.hint
            refusals.append(str(error))

    run_ranks(3, meet)
    assert refusals == [message] * 3


def test_agreement_tells_where_to_begin() -> None:
    fact = Fact("model", "m", "")
    assert run_ranks(3, lambda ring: agree(ring, [fact], 512 if ring.rank == 0 else 0)) == [512] * 3


def test_documents_are_shared_out_by_size() -> None:
    assert shares([10, 60, 20, 30, 30], 2) == [[1, 2], [0, 3, 4]]
    assert shares([], 3) == [[], [], []]
    assert shares([5], 3) == [[0], [], []]


@pytest.mark.parametrize("shelves", ["one", "apart"])
def test_a_folder_is_read_document_by_document(
    shelves: str, demo: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one machine all ranks have one store; on several, states travel to rank 0's."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.txt").write_text(f"{LINE * (8 + 9 * number)}It was day {number}.", encoding="utf-8")
    (folder / "broken.pdf").write_bytes(b"")
    monkeypatch.setenv("LONGMAMBA_HOME", str(tmp_path / "alone"))
    expected = list(open_each([str(folder)], Session("demo").open))
    own = threading.local()

    def store() -> Path:
        return tmp_path / "many" / "states" if shelves == "one" else tmp_path / f"many{own.rank or ''}" / "states"

    for module in ("ranks.sharing", "open_document"):
        monkeypatch.setattr(f"longmamba_mlx.session.{module}.state_folder", store)

    def work(ring: Ring) -> list[Event]:
        own.rank = ring.rank
        return list(read_shares(demo, [str(folder)], ring, "1"))

    parts = run_ranks(3, work)
    digests = {event.stored for event in expected if isinstance(event, ReadDone)}
    assert len(digests) == 5
    assert {event.stored for part in parts for event in part if isinstance(event, ReadDone)} == digests
    assert all(any(isinstance(event, ReadDone) for event in part) for part in parts)
    notices = [event.text for part in parts for event in part if isinstance(event, Notice)]
    assert len(notices) == 1 and "broken.pdf is skipped" in notices[0]
    assert {path.stem for path in (tmp_path / "many").rglob("??/*.safetensors")} == digests
    for path in (tmp_path / "many" / "states").glob("??/*.safetensors"):
        (other,) = (tmp_path / "alone").rglob(path.name)
        mine, theirs = load_file(path), load_file(other)
        assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)


def test_each_file_alone_skips_what_cannot_be_read(run: Run, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "empty.txt").write_text("")
    nothing = run("read", "--each", "--file", str(shelf))
    assert nothing.code == 65 and "Nothing there can be read" in nothing.err
    for name in "ab":
        (shelf / f"{name}.txt").write_text(f"{LINE}{name}")
    result = run("read", "--each", "--json", "--file", str(shelf))
    assert result.code == 0 and "empty.txt is skipped" in result.err
    assert [json.loads(line)["title"] for line in result.out.splitlines()] == ["a.txt", "b.txt"]
    named = run("read", "--each", "--file", str(shelf / "empty.txt"))
    assert named.code == 65


def test_different_folders_are_refused(demo: Model, tmp_path: Path) -> None:
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
        (tmp_path / str(rank) / "a.txt").write_text(LINE * (rank + 1))
    with pytest.raises(UsageError, match="Rank 1 has another model, options or documents than rank 0"):
        run_ranks(2, lambda ring: list(read_shares(demo, [str(tmp_path / str(ring.rank))], ring, "1")))


def test_lines_are_events_again() -> None:
    for told in (
        Hello("Müller’s Mac", 12),
        Beat(),
        Ready(),
        Joined(),
        Lost(),
        Ended(99),
        Failed("No", None, 2),
        ReadProgress(1, 2, 3.5, 4.5, 5, "chapter 1"),
        ReadDone("t", 1, 2.0, 3, False, None, "off"),
    ):
        line = to_line(3, told)
        assert line.isascii() and from_line(line) == (3, told)
    for line in (
        "",
        "/tmp/tmp.x",
        "[]",
        "3",
        '{"rank": 0}',
        '{"rank": 0, "is": "Answer"}',
        '{"rank": "0", "is": "Beat"}',
        '{"rank": 0, "is": "Ended"}',
        '{"rank": 0, "is": "Ended", "sent": "1"}',
        '{"rank": 0, "is": "Beat", "more": 1}',
        "[" * 100_000,
    ):
        assert from_line(line) is None


def test_a_silent_rank_hangs_unless_nobody_listened(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(watching.time, "monotonic", lambda: now)
    watch = Watch(2, started=now, looked=now)
    for rank in range(2):
        watch.hear(to_line(rank, Hello("h", rank)))
    assert watch.hung(now) is None and watch.turns == 0
    for told, turns in ((Ready(), 1), (Joined(), 3)):
        watch.hear(to_line(0, told))
        watch.hear(to_line(1, told))
        assert watch.turns == turns
    for _ in range(4):
        now += 2.0
        watch.hear(to_line(0, Beat()))
        assert watch.hung(now) == (1 if now > 106 else None)
    watch.hear(to_line(1, Ended(5)))  # it has nothing more to say
    assert watch.hung(now) is None and not watch.complete and watch.sent == {1: 5}
    now += 60.0  # this process was asleep
    assert watch.hung(now) is None
    late = Watch(2, started=now, looked=now)
    late.hear(to_line(0, Joined()))
    for _ in range(61):
        now += 2.0
        late.hear(to_line(0, Beat()))
        found = late.hung(now)
    assert found == 1  # it never connected


def test_the_end_of_a_rank_is_noticed() -> None:
    watch = Watch(2)
    watch.hear_launcher("\x1b[33m[WARN] Node with rank 1 exited with code -9 \x1b[0m\n")
    watch.hear_launcher("\x1b[33m[WARN] Node with rank 0 was killed \x1b[0m\n")
    assert watch.is_over and watch.exits == [(1, -9), (0, -9)]


def test_hostfiles(tmp_path: Path) -> None:
    path = tmp_path / "hosts.json"
    good = [{"ssh": "mac1.local", "ips": ["10.0.0.1"]}, {"ssh": "mac2.local", "ips": ["10.0.0.2"]}]
    for content in (good, {"backend": "ring", "hosts": good}):
        path.write_text(json.dumps(content))
        assert hosts.from_file(path) == good
    option = {"ssh": "-oProxyCommand=x", "ips": ["10.0.0.3"]}
    for bad in (good[:1], [*good, {"ssh": "mac3"}], [*good, option], {}, [1, 2]):
        path.write_text(json.dumps(bad))
        with pytest.raises(UsageError, match="hostfile"):
            hosts.from_file(path)
    path.write_text("{")
    with pytest.raises(UsageError, match="is not JSON"):
        hosts.from_file(path)
    with pytest.raises(UsageError, match="Cannot read the hostfile"):
        hosts.from_file(tmp_path / "none")


def test_options_travel() -> None:
    options = RankOptions(("a", "b"), "demo", chunk=7, each=True)
    assert RankOptions.from_json(options.to_json()) == options
    for text in ("{", "[]", '{"files": ["a"], "model": "demo", "later": 1}', '{"model": "demo"}'):
        with pytest.raises(UsageError, match="another version"):
            RankOptions.from_json(text)


def test_processes_read_together(run: Run, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGMAMBA_HOME", str(tmp_path / "one"))
    assert run("read", "--file", str(book)).code == 0
    monkeypatch.setenv("LONGMAMBA_HOME", str(tmp_path / "many"))
    result = run("read", "--ranks", "2", "--json", "--file", str(book))
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["ranks"] == 2 and not found["reopened"] and "have sent each other" in result.err
    assert_same_store(tmp_path / "many", tmp_path / "one")


@pytest.mark.long
def test_what_is_wrong_is_one_line(run: Run, book: Path) -> None:
    missing = run("read", "--ranks", "2", "--file", str(book.with_name("none.txt")))
    assert missing.code == 66 and missing.err.splitlines()[-2].startswith("Error: ") and "Traceback" not in missing.err
    document = run("read", "--ranks", "2", "--filter", "document", "--file", str(book))
    assert document.code == 2 and "looks at the whole document" in document.err
    piped = run("read", "--ranks", "2", "--file", "-")
    assert piped.code == 2 and "standard input" in piped.err


class Started:
    """`read --ranks` as a process that a test can hurt."""

    def __init__(self, book: Path, home: Path, ranks: int) -> None:
        self.home = home
        command = [sys.executable, "-m", "longmamba_mlx", "read", "--ranks", str(ranks), "--file", str(book)]
        environment = {**os.environ, "LONGMAMBA_HOME": str(home)}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def rank(self, rank: int) -> int | None:
        """The process id of a rank, once it runs."""
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words = (path / "cmdline").read_text().split("\0")
                variables = (path / "environ").read_text().split("\0")
            except OSError:
                continue
            own = words[3:4] == ["rank"] and f'"starter": {self.process.pid}}}' in words[4]
            if own and f"MLX_RANK={rank}" in variables:
                return int(path.name)
        return None

    def wait_for(self, there: Callable[[], object]) -> None:
        end = time.monotonic() + 240
        while not there():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end, "it takes too long"
            time.sleep(0.2)

    def end(self) -> tuple[int, str, float]:
        started = time.monotonic()
        err = self.process.communicate(timeout=600)[1]
        return self.process.returncode, err, time.monotonic() - started


def hurt(book: Path, home: Path, ranks: int, rank: int, number: signal.Signals, wait: float) -> tuple[int, str, float]:
    """Send a rank a signal some time after the first checkpoint: exit code, standard error, seconds to the end."""
    started = Started(book, home, ranks)
    started.wait_for(lambda: started.rank(rank))
    time.sleep(wait)
    if started.process.poll() is not None:
        return started.end()
    process = started.rank(rank)
    assert process is not None
    os.kill(process, number)
    return started.end()


@pytest.mark.slow
@pytest.mark.timeout(12 * 3600)
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds its processes in /proc")
def test_a_rank_that_is_killed_or_hangs_costs_one_line_and_little_else(tmp_path: Path) -> None:
    chance = Random(26)
    book = tmp_path / "long.txt"
    book.write_text(LINE * 20000, encoding="utf-8")
    home = tmp_path / "many"
    for attempt in range(12):
        ranks = 2 + attempt % 3
        number = signal.SIGSTOP if attempt % 4 == 3 else signal.SIGKILL
        wait = chance.uniform(0, 20) + (20 if number is signal.SIGSTOP else 0)  # it has a heartbeat by then
        code, err, seconds = hurt(book, home, ranks, chance.randrange(ranks), number, wait)
        if code == 0:
            break
        assert code == 75 and seconds < 10, err
        told = [line for line in err.splitlines() if not line.startswith("Note: ")]
        assert len(told) == 1 and told[0].startswith("Rank "), err
    assert Started(book, home, 3).end()[0] == 0
    assert Started(book, tmp_path / "one", 1).end()[0] == 0
    assert_same_store(home, tmp_path / "one")
