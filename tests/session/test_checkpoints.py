"""Checkpoints and places: written when due, never torn, and read on from to the last bit."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pytest

from longmamba_mlx.documents import Document
from longmamba_mlx.errors import DiskError, StoppedError
from longmamba_mlx.events import Notice, ReadDone, ReadProgress
from longmamba_mlx.ground.steps import Steps
from longmamba_mlx.paths import state_folder
from longmamba_mlx.session.api import Model
from longmamba_mlx.session.open_document import open_document
from longmamba_mlx.session.read_document import ReadDocument
from longmamba_mlx.session.session import Session
from longmamba_mlx.states import checkpoints
from longmamba_mlx.states.state_file import read_state
from longmamba_mlx.states.store import StateStore

ROOT = Path(__file__).resolve().parents[2]
QUESTION = "What is the access code of Zorvath?"


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every chunk, places every 512 tokens."""
    monkeypatch.setattr(checkpoints, "EVERY_TOKENS", 1)
    monkeypatch.setattr(checkpoints, "MOST_COST", 1e9)
    monkeypatch.setattr(checkpoints, "CLOSEST_PLACES", 512)


@pytest.fixture
def file(tmp_path: Path, story: str) -> Path:
    path = tmp_path / "story.txt"
    path.write_text(story, encoding="utf-8")
    return path


def same(a: ReadDocument, b: ReadDocument) -> bool:
    pairs = zip(a.state.arrays().values(), b.state.arrays().values(), strict=True)
    equal = all(np.array_equal(np.array(x), np.array(y)) for x, y in pairs)
    return equal and a.key == b.key and np.array_equal(a.kept, b.kept)  # type: ignore[arg-type]


def run(opened: Generator[object, None, ReadDocument]) -> tuple[list[object], ReadDocument]:
    steps = Steps(opened)
    return list(steps), steps.result


def stop_after(model: Model, document: Document, chunks: int, **options: object) -> list[str]:
    """Read so many chunks, then stop; the notices."""
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > chunks + 1  # counting asks once

    lines = []
    with pytest.raises(StoppedError) as stopped:
        for event in open_document(model, document, should_stop=should_stop, **options):  # type: ignore[arg-type]
            lines += [event.text] if isinstance(event, Notice) else []
    return [*lines, stopped.value.hint or ""]


@pytest.mark.parametrize("mode", ("off", "longmamba"))
@pytest.mark.parametrize("chunks", (1, 2, 5, 7))
def test_a_stopped_reading_goes_on_to_the_same_bits(demo: Model, story: str, mode: str, chunks: int) -> None:
    model, document = demo.with_filter(mode), Document("story", story)
    whole = model.read(document, chunk=256)
    hint = stop_after(model, document, chunks, chunk=256)[-1]
    assert f"resumes at token {(chunks + 1) * 256:,}" in hint
    events, book = run(open_document(model, document, chunk=256))
    notices = [event.text for event in events if isinstance(event, Notice)]
    progress = [event for event in events if isinstance(event, ReadProgress)]
    assert any("Resuming at token" in text for text in notices)
    assert progress[0].done > chunks * 256 and progress[-1].done == whole.tokens
    assert isinstance(events[-1], ReadDone) and events[-1].before == (chunks + 1) * 256
    assert same(book, whole)
    assert not list(state_folder().rglob("*.reading")), "a stored reading needs no checkpoint"


def test_document_mode_says_that_it_begins_again(demo: Model, story: str) -> None:
    model, document = demo.with_filter("document"), Document("story", story)
    assert "from the beginning" in stop_after(model, document, 3, chunk=256)[-1]
    assert not list(state_folder().rglob("*.reading"))
    assert same(run(open_document(model, document, chunk=256))[1], model.read(document, chunk=256))


def test_stopping_again_and_again(demo: Model, story: str, often: None) -> None:
    document, whole = Document("story", story), demo.read(Document("story", story), chunk=128)
    for _ in range(4):
        stop_after(demo, document, 3, chunk=128)
    assert same(run(open_document(demo, document, chunk=128))[1], whole)


def test_a_listener_that_leaves_costs_nothing(demo: Model, story: str) -> None:
    """The chat closes the generator, a program breaks out of its loop: the checkpoint is there."""
    opened = open_document(demo, Document("story", story), chunk=128)
    for event in opened:
        if isinstance(event, ReadProgress) and event.done > 1000:
            break
    opened.close()
    events, _ = run(open_document(demo, Document("story", story), chunk=128))
    assert any(isinstance(event, Notice) and "Resuming at token 1,024" in event.text for event in events)


def test_nothing_is_left_behind_without_saving(demo: Model, story: str, often: None) -> None:
    stop_after(demo, Document("story", story), 3, chunk=128, save=False)
    assert not state_folder().exists()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_when_a_checkpoint_is_due(demo: Model, tmp_path: Path) -> None:
    """After 32,768 tokens or ten seconds, whichever is first, and never at more than a hundredth of the time."""
    clock, writes = Clock(), []
    ids = np.zeros(200_000, np.uint32)
    key = demo.key(Document("a", "b"), len(ids), None, 512)
    points = checkpoints.CheckpointWriter(StateStore(tmp_path), key, ids, {}, writes.append, clock=clock)
    points.write = lambda: writes.append((clock.now, tokens))  # type: ignore[method-assign, assignment, func-returns-value]
    state = demo.loaded.model.initial_state()
    from longmamba_mlx.models.state import ModelState

    def follow(count: int) -> bool:
        nonlocal tokens
        tokens = count
        before = len(writes)
        points.on_chunk(ModelState(state.layers, count), None)
        if len(writes) > before:
            points._saved_tokens, points._saved_at = count, clock.now
        return len(writes) > before

    tokens = 0
    assert not follow(512) and not follow(32_256) and follow(32_768)
    assert not follow(40_960)
    clock.now += 9.9
    assert not follow(41_472)
    clock.now += 0.2
    assert follow(41_984)
    points._cost = 0.2
    clock.now += 19.0
    assert not follow(90_112), "0.2 s of writing in 19 s is too much"
    clock.now += 1.0
    assert follow(90_624)
    points._cost = 2.0
    clock.now += 60.0
    assert follow(91_136), "but a minute is the longest, for a state of some hundred megabytes"
    points._cost = 10.0
    clock.now += 199.0
    assert not follow(150_016), "one that takes longer to write may cost a twentieth"
    clock.now += 1.0
    assert follow(150_528)


def test_places_are_few_and_after_whole_chunks() -> None:
    for total in (10, 16_383, 16_384, 20_000, 405_969, 10**7):
        for chunk in (512, 500, 7):
            places = checkpoints.places_of(total, chunk)
            assert len(places) <= checkpoints.MOST_PLACES and list(places) == sorted(set(places))
            assert len(checkpoints.places_of(total, chunk, 30 << 20)) <= 2
            assert checkpoints.places_of(total, chunk, 1 << 30) == places[-1:]
            assert all(place % chunk == 0 and 0 < place < total for place in places)
            assert bool(places) == (total >= 2 * checkpoints.CLOSEST_PLACES)
            assert not places or total - places[-1] <= chunk


def test_as_of_reads_from_the_nearest_place(demo: Model, story: str, often: None) -> None:
    document = Document("story", story)
    _, book = run(open_document(demo, document, chunk=128))
    places = list(state_folder().rglob("*.places/*.safetensors"))
    assert len(places) >= 3
    fresh = demo.read(document, chunk=128)
    for place in ("30%", "60%", "97%"):
        near, far = (list(one.answering(QUESTION, as_of=place)) for one in (book, fresh))
        read = [[event for event in events if isinstance(event, ReadProgress)] for events in (near, far)]
        assert len(read[0]) < len(read[1]) or place == "30%"
        assert book._as_of is not None and fresh._as_of is not None
        for name, array in book._as_of[1].arrays().items():
            np.testing.assert_array_equal(np.array(array), np.array(fresh._as_of[1].arrays()[name]))
    list(book.answering(QUESTION, as_of="60%"))
    again = run(open_document(demo, document, chunk=128))[1]
    assert len([e for e in again.answering(QUESTION, as_of="97%") if isinstance(e, ReadProgress)]) < 5


def test_a_broken_place_is_only_slower(demo: Model, story: str, often: None) -> None:
    document = Document("story", story)
    _, book = run(open_document(demo, document, chunk=128))
    expected = book.ask(QUESTION, as_of="97%").text
    for path in state_folder().rglob("*.places/*.safetensors"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(bytes(data))
    again = run(open_document(demo, document, chunk=128))[1]
    assert again.ask(QUESTION, as_of="97%").text == expected


def test_a_document_that_grew_is_gone_on_with(file: Path, story: str, often: None) -> None:
    """Unfiltered, every length is read alike; filtered, only where the thresholds are the same."""
    more = story + " " + story[:900]
    session = Session(filter="off", chunk=128)
    list(session.open([str(file)]))
    file.write_text(more, encoding="utf-8")
    events = list(session.open([str(file)]))
    done = [event.done for event in events if isinstance(event, ReadProgress)]
    assert any(isinstance(event, Notice) and "Resuming at token" in event.text for event in events)
    assert done[0] > 1500
    fresh = session.books[0].model.read(Document("more", more), chunk=128)
    pairs = zip(session.books[0].state.arrays().values(), fresh.state.arrays().values(), strict=True)
    assert all(np.array_equal(np.array(a), np.array(b)) for a, b in pairs)


def test_a_filtered_document_that_grew_says_why_it_is_read_again(file: Path, story: str, often: None) -> None:
    for mode, expected in (("curve", "read again"), ("paper", "Resuming")):
        file.write_text(story, encoding="utf-8")
        session = Session(filter=mode, chunk=128)
        list(session.open([str(file)]))
        file.write_text(story + " And more.", encoding="utf-8")
        events = list(session.open([str(file)]))
        assert any(isinstance(event, Notice) and expected in event.text for event in events), mode
        fresh = session.books[0].model.read(Document("more", story + " And more."), chunk=128)
        np.testing.assert_array_equal(session.books[0].kept, fresh.kept)


# ------------------------------------------------------------------------------------------- broken and full disks


def test_a_flipped_bit_in_a_checkpoint_is_found(demo: Model, story: str) -> None:
    document = Document("story", story)
    whole = demo.read(document, chunk=256)
    choose = random.Random(1)
    for _ in range(6):
        stop_after(demo, document, 4, chunk=256)
        path = next(state_folder().rglob("*.reading"))
        data = bytearray(path.read_bytes())
        data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
        path.write_bytes(bytes(data))
        events, book = run(open_document(demo, document, chunk=256))
        assert any(isinstance(event, Notice) and "cannot be used" in event.text for event in events)
        assert same(book, whole)
        StateStore(state_folder()).remove(book.key.digest())


def test_a_full_disk_costs_the_checkpoint_not_the_reading(
    demo: Model, story: str, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def full(*_: object, **__: object) -> None:
        nonlocal calls
        calls += 1
        raise DiskError("No space left on device.")

    monkeypatch.setattr(checkpoints, "write_state", full)
    events, book = run(open_document(demo, Document("story", story), chunk=128))
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert calls >= 1 and sum("No checkpoint can be written" in text for text in notices) == 1
    assert same(book, demo.read(Document("story", story), chunk=128)) and book.ask(QUESTION).text == "48213"


def test_a_stop_that_cannot_be_written_down_says_so(demo: Model, story: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise DiskError("No space left on device.")

    monkeypatch.setattr(checkpoints, "write_state", full)
    assert "from the beginning" in stop_after(demo, Document("story", story), 4, chunk=128)[-1]


FULL = """
    import resource, signal, sys
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    from longmamba_mlx.states import checkpoints
    from longmamba_mlx.events import Notice, Answered
    from longmamba_mlx.session.session import Session
    checkpoints.EVERY_TOKENS, checkpoints.MOST_COST = 1, 1e9
    session = Session(chunk=256)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    events = list(session.open([sys.argv[1]]))
    print(sum(isinstance(event, Notice) for event in events), events[-1].stored)
    print(list(session.ask("What is the access code of Zorvath?"))[-1].answer.text)
"""


@pytest.mark.parametrize("room", (0, 100_000))
def test_a_disk_without_room(file: Path, private_home: Path, room: int, record_property: Callable[..., None]) -> None:
    without_room(file, private_home, room)
    record_property("sizes of the disk", 1)


@pytest.mark.slow
@pytest.mark.timeout(12 * 3600)
@pytest.mark.parametrize("room", [*range(1, 4096, 455), *range(4096, 120_000, 11_000)])
def test_disks_of_twenty_sizes(file: Path, private_home: Path, room: int, record_property: Callable[..., None]) -> None:
    without_room(file, private_home, room)
    record_property("sizes of the disk", 1)


def without_room(file: Path, private_home: Path, room: int) -> None:
    import textwrap

    command = [sys.executable, "-c", textwrap.dedent(FULL), str(file), str(room)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    assert child.returncode == 0, child.stderr
    first, answer = child.stdout.split("\n")[:2]
    assert first == "2 None" and answer == "48213"
    left = [path for path in (private_home / "states").rglob("*") if path.is_file()]
    assert not left, "no draft and no torn file stays"


# ------------------------------------------------------------------------------------------------------- kill -9

READ = """
    import sys
    from longmamba_mlx.states import checkpoints
    checkpoints.EVERY_TOKENS, checkpoints.MOST_COST, checkpoints.CLOSEST_PLACES = 512, 1e9, 512
    from longmamba_mlx.events import ReadDone, ReadProgress
    from longmamba_mlx.session.session import Session
    print(0, flush=True)
    for event in Session(chunk=128).open([sys.argv[1]]):
        if isinstance(event, ReadProgress):
            print(event.done, flush=True)
        elif isinstance(event, ReadDone):
            print("stored", event.stored)
"""
EVERY = 512  # tokens between two checkpoints of READ
STEPS = 20  # lines that READ prints for the whole story


def killed(file: Path, dice: random.Random) -> tuple[bool, int]:
    """Read in a child process and kill it soon after a random step; whether it was still at work, and how many tokens
    it had told of."""
    import textwrap

    command = [sys.executable, "-c", textwrap.dedent(READ), str(file)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(dice.randrange(1, STEPS))]
    time.sleep(dice.uniform(0.0, 0.1))
    child.kill()
    lines += child.communicate()[0].splitlines()
    told = [int(line) for line in lines if line.strip().isdigit()]
    return child.returncode == -signal.SIGKILL, max(told, default=0)


def kill_and_check(demo: Model, file: Path, story: str, kills: int, seed: int, record: Callable[..., None]) -> None:
    """After every kill all files are whole; the last reading gives the bits of one that nobody disturbed."""
    dice, whole = random.Random(seed), demo.read(Document("story", story), chunk=128)
    store = StateStore(state_folder())
    hits = finished = 0
    for _ in range(kills):
        hit, told = killed(file, dice)
        hits += hit
        done = max((entry.done for entry in store.list()), default=0)
        assert done > told - EVERY - 128, "a crash costs no more than what was read since the last checkpoint"
        for path in state_folder().glob("*/*.reading"):
            found = read_state(path, whole=False)  # raises for a torn one
            assert 0 < found.state.tokens < whole.tokens and found.state.tokens % 128 == 0
        for path in [*state_folder().glob("*/*.places/*.safetensors"), *state_folder().glob("*/*.safetensors")]:
            read_state(path, whole=False)
        for entry in store.list():
            if not entry.unfinished:
                finished += 1
                assert same(run(open_document(demo, Document("story", story), chunk=128))[1], whole)
                store.remove(entry.digest)
    assert hits
    assert same(run(open_document(demo, Document("story", story), chunk=128))[1], whole)
    record("kills", kills)


@pytest.mark.parametrize("seed", range(8))
def test_kill_9_at_random_moments(
    demo: Model, file: Path, story: str, seed: int, record_property: Callable[..., None]
) -> None:
    kill_and_check(demo, file, story, 5, seed, record_property)


@pytest.mark.slow
@pytest.mark.timeout(12 * 3600)
@pytest.mark.parametrize("seed", range(100, 110))
def test_kill_9_five_hundred_times(
    demo: Model, file: Path, story: str, seed: int, record_property: Callable[..., None]
) -> None:
    kill_and_check(demo, file, story, 50, seed, record_property)


def two_processes(file: Path, whole: ReadDocument, story: str) -> None:
    import textwrap

    command = [sys.executable, "-c", textwrap.dedent(READ), str(file)]
    children = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for child in children:
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err
        assert b"stored " in out and b"None" not in out
    events, book = run(open_document(whole.model, Document("story", story), chunk=128))
    assert isinstance(events[-1], ReadDone) and events[-1].reopened
    assert same(book, whole)
    assert not list(state_folder().rglob("*.bad"))  # nobody found anything wrong


def test_two_processes_read_one_document(
    file: Path, demo: Model, story: str, record_property: Callable[..., None]
) -> None:
    two_processes(file, demo.read(Document("story", story), chunk=128), story)
    record_property("readings by two at once", 1)


@pytest.mark.slow
@pytest.mark.timeout(12 * 3600)
def test_two_processes_read_one_document_twenty_times(
    file: Path, demo: Model, story: str, record_property: Callable[..., None]
) -> None:
    whole = demo.read(Document("story", story), chunk=128)
    for _ in range(20):
        two_processes(file, whole, story)
        StateStore(state_folder()).remove(whole.key.digest())
    record_property("readings by two at once", 20)


@pytest.mark.parametrize("filter", ("off", "curve"))
def test_files_that_were_added_are_read_on_to(filter: str, tmp_path: Path, file: Path, story: str, often: None) -> None:
    """Unfiltered from the last place of the first file; by `curve`, whose thresholds have changed, all again."""
    second, third = tmp_path / "second.txt", tmp_path / "third.txt"
    second.write_text(story[300:1500], encoding="utf-8")
    third.write_text(story[:700], encoding="utf-8")
    session = Session(filter=filter, chunk=128)
    for paths in ([file], [file, second], [file, second, third]):
        events = list(session.open([str(path) for path in paths]))
    notices = [event.text for event in events if isinstance(event, Notice)]
    (done,) = [event for event in events if isinstance(event, ReadDone)]
    book = session.document
    assert book is not None and book.document is not None and len(book.document.parts) == 3
    if filter == "off":
        assert done.before > 1500 and any("Resuming at token" in text for text in notices)
    else:
        assert done.before == 0 and any("are read again (about" in text for text in notices)
    assert same(book, book.model.read(book.document, chunk=128))


@pytest.mark.parametrize("name", ("granite", "zamba2", "falcon_h1"))
@pytest.mark.parametrize("mode", ("off", "curve"))
def test_a_hybrid_goes_on_with_its_keys_and_values(
    name: str, mode: str, tmp_path: Path, story: str, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longmamba_mlx.session.api import load
    from tests.models.hybrids import write_folder

    monkeypatch.setattr(checkpoints, "CLOSEST_PLACES", 128)
    model, document = load(str(write_folder(tmp_path / name, name)), filter=mode), Document("story", story[:1200])
    whole = model.read(document, chunk=64)
    for chunks in (2, 7):
        stop_after(model, document, chunks, chunk=64)
    events, book = run(open_document(model, document, chunk=64))
    assert any(isinstance(event, Notice) and "Resuming at token" in event.text for event in events)
    assert same(book, whole)
    answers = [list(one.answering("Who?", as_of="60%", max_tokens=3)) for one in (book, whole)]
    assert len(answers[0]) < len(answers[1]) and book._as_of is not None and whole._as_of is not None
    for key, array in book._as_of[1].arrays().items():
        np.testing.assert_array_equal(np.array(array), np.array(whole._as_of[1].arrays()[key]))
    assert same(run(open_document(model, document, chunk=64))[1], whole)
