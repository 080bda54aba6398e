"""Files as people name them: folders, patterns, several at once; and large files read in pieces."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from longmamba_mlx.documents import decode, gathering, read_document, read_documents, reader
from longmamba_mlx.documents.sanitise import clean
from longmamba_mlx.errors import DocumentError, DocumentMissingError

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Notes as they lie about: chapters out of order, hidden files, pictures, a folder within."""
    for name, content in {
        "chapter 10.txt": b"ten",
        "chapter 2.txt": b"two",
        "Chapter 1.md": b"# one",
        ".hidden.txt": b"hidden",
        "cover.png": PNG,
        "page.html": b"<html><p>web",
        "sub/deep.txt": b"deep",
        ".git/config": b"no",
        "node_modules/x.txt": b"no",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_a_folder_is_read_as_a_person_would(folder: Path) -> None:
    document = read_document(folder)
    assert document.text == "# one\n\ntwo\n\nten\n\nweb\n\ndeep"
    titles = ["Chapter 1.md", "chapter 2.txt", "chapter 10.txt", "page.html", os.path.join("sub", "deep.txt")]
    assert [part.title for part in document.parts] == titles
    assert [place.label for place in document.places if place.kind == "file"] == titles
    assert document.place_at(document.text.index("ten")) == "chapter 10.txt"
    assert document.find_place("chapter 2.txt") == document.text.index("\n\nten")
    assert document.notes == ("Passed over: 'cover.png' is a PNG picture, which cannot be read.",)
    assert (document.title, document.source) == (f"{folder.name} (5 files)", str(folder))
    assert read_document(str(folder) + os.sep).digest == document.digest


def test_patterns_that_a_shell_did_not_expand(folder: Path) -> None:
    assert read_document(folder / "*.txt").text == "two\n\nten"
    assert read_document(folder / "*.txt").title == "*.txt (2 files)"
    assert read_document(folder / "sub").title == "deep.txt"
    assert read_document(f"{folder}/**/*.txt").text.endswith("deep")
    assert read_document(f"{folder}/chapter [0-9].txt").text == "two"
    (folder / "odd[1].txt").write_text("a name with brackets")
    assert read_document(folder / "odd[1].txt").text == "a name with brackets"


def test_several_of_all_kinds_and_none_twice(folder: Path) -> None:
    document = read_documents([folder / "chapter 10.txt", folder / "*.txt", folder / "sub"])
    assert document.text == "ten\n\ntwo\n\ndeep"
    assert document.notes == ()
    (folder / "link.txt").symlink_to(folder / "chapter 2.txt")
    for other in ("sub/../chapter 2.txt", "./chapter 2.txt", "link.txt"):
        assert read_documents([folder / "chapter 2.txt", f"{folder}/{other}"]).text == "two", other


def test_a_link_to_a_folder_is_not_followed_into(folder: Path) -> None:
    (folder / "sub" / "loop").symlink_to(folder)
    assert read_document(folder / "sub").text == "deep"


def test_what_was_named_must_be_read(folder: Path) -> None:
    with pytest.raises(DocumentError, match="PNG"):
        read_documents([folder / "chapter 2.txt", folder / "cover.png"])
    with pytest.raises(DocumentMissingError):
        read_documents([folder / "chapter 2.txt", folder / "none.txt"])


def test_nothing_to_be_found(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "empty" / ".x").write_text("hidden")
    for path, code in ((folder / "*.doc", 66), (folder / "empty", 66), (folder / "*.png", 65)):
        with pytest.raises(DocumentError) as caught:
            read_document(path)
        assert caught.value.exit_code == code and caught.value.hint and "\n" not in str(caught.value)
    (folder / "empty" / "a.png").write_bytes(PNG)
    (folder / "empty" / "b.png").write_bytes(PNG)
    with pytest.raises(DocumentError, match=r"Nothing there can be read: 'a.png' is a PNG.*and 1 more"):
        read_document(folder / "empty")


def test_too_many_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MOST_FILES", 4)
    with pytest.raises(DocumentError, match="over 4 files"):
        read_document(folder)
    monkeypatch.setattr(gathering, "MOST_FILES", 6)
    read_document(folder)


def test_many_files_passed_over(folder: Path) -> None:
    for number in range(10):
        (folder / f"{number}.png").write_bytes(PNG)
    notes = read_document(folder).notes
    assert len(notes) == 4 and "8 more" in notes[-1]


def test_together_too_large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MOST_BYTES", 10)
    with pytest.raises(DocumentError, match="together"):
        read_document(folder)


@given(st.lists(st.text("ab 019.", max_size=8), max_size=8))
def test_names_are_sorted_as_a_person_counts(names: list[str]) -> None:
    ordered = sorted(names, key=gathering._as_counted)
    assert sorted(ordered) == sorted(names)
    numbers = [name for name in ordered if name.isdecimal() and len(name) < 10]
    assert [int(name) for name in numbers] == sorted(int(name) for name in numbers)


# ------------------------------------------------------------------------------------------------- large files

PIECES = st.lists(
    st.sampled_from(
        ["a", "\r", "\n", "\f", "\r\n", "\x85", "\u2028", "é", "語", "😀", "\x1b", "\ufeff", "\u202e", "word"]
    )
)


@settings(max_examples=400, deadline=None)
@given(PIECES.map("".join), st.integers(1, 9), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))
@example("a\f\nb\f\n\r\n", 1, "utf-8")
@example("\r\n" * 20, 3, "utf-8")
def test_a_file_in_pieces_is_the_same_text(text: str, block: int, encoding: str) -> None:
    """However it is cut: within a character, a line end, or what a line end changes beside it."""
    text = "enough plain text before it " + text
    before = decode._BLOCK
    decode._BLOCK = block
    try:
        assert decode.decode_clean(io.BytesIO(text.encode(encoding))).text == clean(text.removeprefix("\ufeff"))
    finally:
        decode._BLOCK = before


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Das Mädchen aß übermäßig viele Äpfel, “sagte” er."),
        ("koi8_r", "Все счастливые семьи похожи друг на друга, каждая"),
    ],
)
def test_other_encodings_in_pieces(encoding: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_BLOCK", 7)
    assert decode.decode_clean(io.BytesIO((text * 9).encode(encoding))).text == text * 9


def test_a_mark_that_lies() -> None:
    with pytest.raises(decode.UndecodableError, match="UTF-16"):
        decode.decode_clean(io.BytesIO(b"\xff\xfea"))
