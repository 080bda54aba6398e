"""R3, R4: a changed checkpoint, place or index is noticed, and never changes what is read or shown from it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from longmamba_mlx.documents import Document
from longmamba_mlx.errors import DiskError
from longmamba_mlx.retrieval.passage_index import open_index
from longmamba_mlx.states.checkpoints import CheckpointWriter, nearest_place
from longmamba_mlx.states.store import StateStore
from tests.states.samples import INFO, KEY, make_state, same

Record = Callable[[str, object], None]
IDS = np.arange(KEY.tokens, dtype=np.uint32)
DONE = 24  # tokens of the checkpoint and of the place


def damages(content: bytes, flips: int, dice: random.Random) -> Iterator[bytes]:
    """Flipped bits, all of the first 64 bytes among them; cuts, tails, zeroed and swapped parts."""
    size = len(content)
    for bit in [*range(512), *(dice.randrange(size * 8) for _ in range(flips))]:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)
    for _ in range(flips // 4):
        start, end = sorted(dice.sample(range(size + 1), 2))
        yield content[:start]
        yield content + dice.randbytes(end - start)
        if any(content[start:end]):
            yield content[:start] + bytes(end - start) + content[end:]
        yield content[end:] + content[:end] if end < size else content[::-1]


class Reading:
    """A store with a checkpoint and a place of one reading."""

    def __init__(self, folder: Path) -> None:
        self.warnings: list[str] = []
        self.store, self.like = StateStore(folder), make_state(tokens=0)
        writer = self.writer()
        writer._waiting = [(make_state(3, tokens=DONE), writer._digest.after(DONE))]
        writer.on_chunk(make_state(2, tokens=DONE), np.zeros(DONE, np.uint8))
        writer.write()
        self.place = self.store.places_folder(KEY) / f"{DONE:012}.safetensors"

    def writer(self) -> CheckpointWriter:
        return CheckpointWriter(self.store, KEY, IDS, INFO, self.warnings.append)

    def from_checkpoint(self) -> object:
        return self.writer().load(self.like)

    def from_place(self) -> object:
        return nearest_place(self.store.places_folder(KEY), KEY, IDS, self.like, self.warnings.append)


def check(reading: Reading, path: Path, load: Callable[[], object], seed: int, flips: int) -> int:
    content, count = path.read_bytes(), 0
    stored = load()
    assert stored is not None and same(stored.state, make_state(seed, tokens=DONE))  # type: ignore[attr-defined]
    for count, changed in enumerate(damages(content, flips, random.Random(flips)), start=1):
        path.write_bytes(changed)
        assert load() is None, count
        assert reading.warnings and not path.exists(), "it is told of, and deleted"
        reading.warnings.clear()
    path.write_bytes(content)
    assert load() is not None
    return count


def check_both(folder: Path, flips: int, record_property: Record) -> None:
    reading = Reading(folder)
    checkpoint = reading.store.checkpoint_path(KEY)
    tried = check(reading, checkpoint, reading.from_checkpoint, 2, flips)
    record_property("changed .reading files", f"{tried}, 0 believed")
    tried = check(reading, reading.place, reading.from_place, 3, flips)
    record_property("changed .places files", f"{tried}, 0 believed")


def test_a_changed_checkpoint_or_place_is_never_read_on_from(tmp_path: Path, record_property: Record) -> None:
    check_both(tmp_path, 200, record_property)


@pytest.mark.slow
@pytest.mark.timeout(12 * 3600)
def test_thousands_of_changes(tmp_path: Path, record_property: Record) -> None:
    check_both(tmp_path, 20_000, record_property)


def test_a_sound_file_in_another_ones_place_is_refused(tmp_path: Path) -> None:
    """Files that are whole, but of another text: their ids differ."""
    reading = Reading(tmp_path)
    other = CheckpointWriter(reading.store, KEY, IDS + 1, INFO, reading.warnings.append)
    assert other.load(reading.like) is None
    assert nearest_place(reading.store.places_folder(KEY), KEY, IDS + 1, reading.like, reading.warnings.append) is None


def check_index(folder: Path, text: str, flips: int, record_property: Record) -> None:
    document, file = Document("story", text), folder / "passages.sqlite"

    def content() -> list[object]:
        database = open_index(document, file)
        try:
            rows = [database.execute(f"SELECT * FROM {table}").fetchall() for table in ("spans", "places", "about")]
            find = "SELECT rowid FROM passages WHERE passages MATCH ? ORDER BY rank"
            return [*rows, *(database.execute(find, (word,)).fetchall() for word in ("watch", "captain", "strake"))]
        finally:
            database.close()

    right = content()
    whole = file.read_bytes()
    assert all(right[0:1] + right[2:]), "every word is found"
    tried = 0
    for tried, changed in enumerate(damages(whole, flips, random.Random(flips)), start=1):
        file.write_bytes(changed)
        assert content() == right, tried
    record_property("changed passages.sqlite files", f"{tried}, 0 wrong passages")


def test_a_changed_index_is_built_again(tmp_path: Path, story: str, record_property: Record,
                                        monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """It is not rewritten here, but in memory: what counts is what is found."""
    from longmamba_mlx.retrieval import passage_index

    first = passage_index.write_atomic

    def once(path: Path, writer: Callable[[Path], object]) -> None:
        if path.exists():
            raise DiskError("The disk is full.")
        first(path, writer)

    monkeypatch.setattr(passage_index, "write_atomic", once)
    check_index(tmp_path, story[:7000], 60, record_property)
