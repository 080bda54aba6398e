"""Document, its parts, paragraphs and headings: offsets that always point at the text."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from longmamba_mlx.documents import Document, Paragraph, Part, join, read_documents
from longmamba_mlx.documents.blocks import LONGEST
from longmamba_mlx.errors import DocumentError

BOOK = """The Book

CHAPTER I. Down the Hole

Alice was beginning to get very tired
of sitting by her sister.

“What is the use of a book?”

CHAPTER II
The Pool of Tears

“Curiouser and curiouser!”
"""


def split_paragraphs(text: str) -> list[Paragraph]:
    return list(Document("t", text).paragraphs) if text.strip() else []


def test_digest_is_of_the_clean_text() -> None:
    assert Document("t", "a\r\nü").digest == hashlib.sha256("a\nü".encode()).hexdigest()
    assert Document("t", "a\nü").digest == Document("u", "a\r\nü", source="elsewhere").digest


def test_a_document_made_in_a_program_is_clean_too() -> None:
    document = Document("a\x1b[2J\nb", "x\x1b]0;t\x07\ud800y")
    assert document.title == "a[2J b" and document.text == "x\ufffdy"
    assert document.parts == (Part(document.title, "text", 0, len(document.text)),)


@pytest.mark.parametrize("text", ["", " ", "\n\x00\n", "\x1b"])
def test_a_document_holds_text(text: str) -> None:
    with pytest.raises(DocumentError) as caught:
        Document("t", text)
    assert caught.value.exit_code == 65


def test_paragraphs_and_headings() -> None:
    document = Document("t", BOOK)
    seen = [(document.text[p.start : p.end], p.number, p.heading) for p in document.paragraphs]
    first, second = "CHAPTER I. Down the Hole", "CHAPTER II The Pool of Tears"
    assert seen == [
        ("The Book", 1, ""),
        ("CHAPTER I. Down the Hole", 2, first),
        ("Alice was beginning to get very tired\nof sitting by her sister.", 3, first),
        ("“What is the use of a book?”", 4, first),
        ("CHAPTER II\nThe Pool of Tears", 5, second),
        ("“Curiouser and curiouser!”", 6, second),
    ]


def test_paragraphs_are_found_once_and_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    import longmamba_mlx.documents.document as module

    calls = []
    blocks = module.blocks
    monkeypatch.setattr(module, "blocks", lambda *bounds: calls.append(bounds) or blocks(*bounds))
    document = Document("t", BOOK)
    assert calls == []
    assert document.paragraphs is document.paragraphs
    assert len(calls) == 1


HEADINGS = [
    ("# Title", "Title"),
    ("###### Deep one ##", "Deep one"),
    ("Title\n=====", "Title"),
    ("Title\n---\nand text", "Title"),
    ("CHAPTER 12", "CHAPTER 12"),
    ("Chapter IV.", "Chapter IV."),
    ("Chapter Twenty-One", "Chapter Twenty-One"),
    ("CHAPTER 133. The Chase—First Day.", "CHAPTER 133. The Chase—First Day."),
    ("CHAPTER I.\nThe Period", "CHAPTER I. The Period"),
    ("Book the First--Recalled to Life", "Book the First--Recalled to Life"),
    ("PART TWO – The Sea Cook", "PART TWO – The Sea Cook"),
    ("ACT III", "ACT III"),
    ("Letter 1", "Letter 1"),
    ("Epilogue", "Epilogue"),
    ("PREFACE.", "PREFACE."),
    ("IV. The Preparation", "IV. The Preparation"),
    ("XII. THE ADVENTURE OF THE COPPER BEECHES", "XII. THE ADVENTURE OF THE COPPER BEECHES"),
    ("ADVENTURE I. A SCANDAL IN BOHEMIA", "ADVENTURE I. A SCANDAL IN BOHEMIA"),
]
NO_HEADINGS = [
    "#hashtag is no heading",
    "####### seven are too many",
    "Chapter 3 was dull.",
    "Part of the crew stayed on board.",
    "Letter writing is an art.",
    "Act quickly!",
    "I. think so",
    "Book a table for two.",
    "Introduction to the theory of everything",
    "a | b\n--- | ---",
    "CHAPTER I. " + "word " * 100,
    "I went home.",
]


@pytest.mark.parametrize(("text", "heading"), HEADINGS, ids=[text for text, _ in HEADINGS])
def test_headings(text: str, heading: str) -> None:
    paragraphs = list(split_paragraphs(f"intro\n\n{text}\n\nbody"))
    assert [p.heading for p in paragraphs] == ["", heading, heading]


@pytest.mark.parametrize("text", NO_HEADINGS)
def test_what_is_no_heading(text: str) -> None:
    assert {p.heading for p in split_paragraphs(f"intro\n\n{text}\n\nbody")} == {""}


def test_a_markdown_heading_needs_no_blank_lines() -> None:
    text = "before\n# One\ntext of one\nmore\n## Two\ntext of two"
    seen = [(text[p.start : p.end], p.heading) for p in split_paragraphs(text)]
    assert seen == [
        ("before", ""),
        ("# One", "One"),
        ("text of one\nmore", "One"),
        ("## Two", "Two"),
        ("text of two", "Two"),
    ]


def test_long_paragraphs_are_cut_at_good_places() -> None:
    for unit, ends in (("A sentence. ", "."), ("word ", "d"), ("line\n", "e"), ("x", "x")):
        text = unit * (3 * LONGEST // len(unit))
        pieces = [text[p.start : p.end] for p in split_paragraphs(text)]
        assert len(pieces) >= 3
        assert all(len(piece) <= LONGEST and piece.endswith(ends) for piece in pieces)
        assert "".join(pieces).replace(" ", "").replace("\n", "") == text.replace(" ", "").replace("\n", "")


TEXTS = st.lists(
    st.sampled_from(
        [
            "a",
            "word",
            " ",
            "\n",
            "\n\n",
            "\t",
            "# ",
            "#",
            "==",
            "===",
            "---",
            ". ",
            "CHAPTER ",
            "IV",
            "é",
            "。",
            "\u3000",
            "x" * 900,
        ]
    ),
    max_size=25,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example("\n\n# \n\n")
@example("a\n# b")
@example("# a\n\n\n# b\n")
def test_offsets_cover_the_text(text: str) -> None:
    """In order, not empty, numbered, and everything between two paragraphs is white space."""
    paragraphs = list(split_paragraphs(text))
    position = 0
    for number, paragraph in enumerate(paragraphs, 1):
        assert paragraph.number == number
        assert position <= paragraph.start < paragraph.end <= len(text)
        assert not text[position : paragraph.start].strip()
        piece = text[paragraph.start : paragraph.end]
        assert piece.strip() and len(piece) <= LONGEST
        assert "\n" not in paragraph.heading
        position = paragraph.end
    assert not text[position:].strip()


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXTS.filter(lambda text: text.strip() != ""), min_size=1, max_size=5))
def test_joined_documents(texts: list[str]) -> None:
    documents = [Document(f"file {index}", text, f"/x/file {index}") for index, text in enumerate(texts)]
    joined = join(documents)
    assert [part.title for part in joined.parts] == [document.title for document in documents]
    assert [joined.text[part.start : part.end] for part in joined.parts] == texts
    for part in joined.parts:
        assert joined.part_at(part.start) == joined.part_at(part.end - 1) == part
    for paragraph in joined.paragraphs:
        assert joined.part_at(paragraph.start) == joined.part_at(paragraph.end - 1)
        assert joined.paragraph_at(paragraph.start) == joined.paragraph_at(paragraph.end - 1) == paragraph


def test_titles_of_several_files(tmp_path: Path) -> None:
    paths = []
    for name in ("a.txt", "b.md", "c.txt", "d.txt"):
        (tmp_path / name).write_text(f"text of {name}")
        paths.append(tmp_path / name)
    assert read_documents(paths[:1]).title == "a.txt"
    assert read_documents(paths[:2]).title == "a.txt, b.md"
    assert read_documents(paths).title == "a.txt and 3 more"
    assert read_documents(paths).text == "text of a.txt\n\ntext of b.md\n\ntext of c.txt\n\ntext of d.txt"
    assert read_documents(paths).digest != read_documents(paths[::-1]).digest
    assert join([read_documents(paths[:2]), read_documents(paths[2:])]).parts == read_documents(paths).parts


def test_nothing_to_join() -> None:
    with pytest.raises(DocumentError):
        read_documents([])


def test_parts_of_a_text_that_is_not_clean() -> None:
    with pytest.raises(ValueError):
        Document("t", "a\r\nb", "s", (Part("t", "s", 0, 4),))


def test_places_outside_the_text() -> None:
    document = Document("t", "\n\na\n\nb\n")
    assert document.paragraph_at(0).number == 1
    assert document.paragraph_at(3).number == 1
    assert document.paragraph_at(999).number == 2
    assert document.part_at(999).title == "t"
