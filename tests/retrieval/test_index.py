"""The stored index: made once, beside the state, for a text in memory or on the disk; never believed unchecked."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from longmamba_mlx.documents import Document, Part, Place, blocks, decode, streamed_text
from longmamba_mlx.documents.streamed_text import LargeText, open_large
from longmamba_mlx.errors import DiskError, StoppedError
from longmamba_mlx.retrieval import passage_index
from longmamba_mlx.retrieval.passages import PassageIndex

BOOK = "".join(
    f"CHAPTER {n}\n\nThe Room of {n}\n\n" + "".join(f"Line {k}, “quoted”, of chapter {n}.\n \n" for k in range(40))
    for n in range(1, 30)
)
QUESTION = "What is line 17 of chapter 12?"


def large(path: Path, text: str, monkeypatch: pytest.MonkeyPatch, encoding: str = "utf-8") -> LargeText:
    """A text on the disk that is read in small pieces."""
    monkeypatch.setattr(streamed_text, "LARGE", 0)
    monkeypatch.setattr(decode, "_BLOCK", 700)
    monkeypatch.setattr(blocks, "_STRETCH", 900)
    path.write_text(text, encoding=encoding, newline="")
    found = open_large([str(path)])
    assert isinstance(found, LargeText)
    return found


def no_building(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage_index, "_fill", lambda *_: pytest.fail("the index is built again"))


@pytest.mark.parametrize("encoding", ("utf-8", "utf-8-sig", "utf-16"))
def test_a_text_on_the_disk_has_the_passages_and_places_of_one_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    text = BOOK.replace("\n", "\r\n")
    one = PassageIndex(large(tmp_path / "t.txt", text, monkeypatch, encoding), tmp_path / "index")
    other = PassageIndex(Document("t.txt", text))
    assert one.search(QUESTION, "", 9) == other.search(QUESTION, "", 9)
    found = one.search(QUESTION, "Line 17, “quoted”, of chapter 12.")[0]
    assert found.quoted and found.place == "CHAPTER 12: The Room of 12"
    whole = Document("t.txt", text)
    for name in ("chapter 12", "50%", "the room of 3", "chapter 40"):
        assert one.places().end_of(name) == whole.find_place(name)
    end = whole.find_place("chapter 11")
    assert end is not None and one.search(QUESTION, "", 9, end=end) == other.search(QUESTION, "", 9, end=end)
    assert all(passage.end <= end for passage in one.search(QUESTION, "", 9, end=end))


def test_a_log_without_paragraphs_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_LONGEST_RUN", 5000)
    text = "".join(f"{n} the disk {n * 7} was tried again\n" for n in range(3000))
    index = PassageIndex(large(tmp_path / "t.log", text, monkeypatch))
    found = index.search("disk 14000", "", 1)[0]
    assert "2000 the disk 14000" in found.text and text[found.start : found.end] == found.text
    assert PassageIndex(large(tmp_path / "t.log", "x" * 90_000, monkeypatch)).search("x", "") == ()


def test_too_many_headings_are_no_chapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from longmamba_mlx.documents import headings

    monkeypatch.setattr(headings, "_MOST_HEADINGS", 20)
    index = PassageIndex(large(tmp_path / "t.txt", BOOK, monkeypatch))
    assert index.places().labels(1) == [] and "Line 17," in index.search(QUESTION, "")[0].text


def test_a_text_is_held_or_not_its_index_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ask` does not hold a large text, the chat does: neither lists its passages again for the other."""
    file = tmp_path / "index"
    found = PassageIndex(large(tmp_path / "t.txt", BOOK, monkeypatch), file).search(QUESTION, "17")
    no_building(monkeypatch)
    assert found and PassageIndex(Document("other name", BOOK), file).search(QUESTION, "17") == found


def test_it_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document, file = Document("t", BOOK), tmp_path / "a folder?x#y%20é" / "index"
    found = PassageIndex(document, file).search(QUESTION, "17")
    assert file.stat().st_mode & 0o077 == 0 or file.parent.stat().st_mode & 0o077 == 0
    assert [path.name for path in file.parent.iterdir()] == ["index"]
    no_building(monkeypatch)
    assert found and PassageIndex(document, file).search(QUESTION, "17") == found


def test_a_changed_bit_is_seen(tmp_path: Path) -> None:
    document, file = Document("t", BOOK[:4000]), tmp_path / "index"
    found = PassageIndex(document, file).search(QUESTION, "17")
    sound = file.read_bytes()
    for place in (*range(0, len(sound), len(sound) // 40), len(sound) - 1):
        data = bytearray(sound)
        data[place] ^= 1
        for torn in (bytes(data), sound[:place], sound + b"x"):
            file.write_bytes(torn)
            assert PassageIndex(document, file).search(QUESTION, "17") == found
            assert file.read_bytes()[-32:] == sound[-32:] or passage_index._is_whole(file), "built again"


def test_an_index_of_something_else_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "index"
    PassageIndex(Document("t", "Another text."), file).places()
    document = Document("t", BOOK)
    assert "Line 17," in PassageIndex(document, file).search(QUESTION, "")[0].text
    chapters = (Place(0, "chapter", "Told by the format", 1),)
    told = Document("t", document.text, "text", (Part("t", "text", 0, len(document.text), chapters),))
    assert PassageIndex(told, file).search(QUESTION, "")[0].place == "Told by the format"
    assert PassageIndex(document, file).search(QUESTION, "")[0].place == "CHAPTER 12: The Room of 12"


def test_without_room_it_lasts_as_long_as_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise DiskError("No space left on device.")

    monkeypatch.setattr(passage_index, "write_atomic", full)
    for document in (Document("t", BOOK), large(tmp_path / "t.txt", BOOK, monkeypatch)):
        assert "Line 17," in PassageIndex(document, tmp_path / "index").search(QUESTION, "")[0].text
    monkeypatch.setattr(passage_index, "_fill", lambda *_: (_ for _ in ()).throw(sqlite3.OperationalError("disk full")))
    with pytest.raises(DiskError, match="no room"):
        PassageIndex(Document("t", BOOK), tmp_path / "index").places()


def test_building_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "index"
    with pytest.raises(StoppedError):
        PassageIndex(Document("t", BOOK), file).places(lambda: True)
    assert not list(tmp_path.iterdir())
