"""HTML, PDF, EPUB and DOCX as real programs write them: the text is what was written, places point at it."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from longmamba_mlx.documents import Document, from_bytes, from_stdin, read_document
from longmamba_mlx.errors import DocumentError
from tests.documents import make_samples

SAMPLES = Path(__file__).parent / "samples"
BOOKS = [
    "pandoc.html",
    "libreoffice.html",
    "pandoc.epub",
    "pandoc-2.epub",
    "pandoc.docx",
    "libreoffice.docx",
]
PDFS = ["libreoffice.pdf", "restricted.pdf"]
HEADINGS = [
    "Chapter 1: The Lamp",
    "What was kept in the tower",
    "What passed in one night",
    "Chapter 2: The Fog Signal",
    "Chapter 3: The Inspector’s Visit",
]


def pieces(document: Document) -> list[str]:
    return [document.text[p.start : p.end] for p in document.paragraphs]


def chapters(document: Document) -> list[str]:
    return [place.label for place in document.places if place.kind == "chapter"]


@pytest.fixture(scope="module")
def documents() -> dict[str, Document]:
    return {name: read_document(SAMPLES / name) for name in [*BOOKS, *PDFS]}


@pytest.mark.parametrize("name", BOOKS)
def test_the_text_is_what_was_written(documents: dict[str, Document], name: str) -> None:
    found = pieces(documents[name])
    wanted = [text for number in (1, 2, 3) for text in make_samples.paragraphs(number, 4)]
    assert [text for text in found if text in wanted] == wanted
    assert [text for text in found if text in HEADINGS] == HEADINGS


@pytest.mark.parametrize("name", BOOKS)
def test_lists_tables_notes_and_quotations(documents: dict[str, Document], name: str) -> None:
    text = documents[name].text
    positions = [text.index(part) for part in ("- a coil of rope\n- two lanterns", "- one of brass", "- the log-book")]
    assert positions == sorted(positions)
    assert "1. Light the lamp.\n2. Wind the clock." in text
    assert "Ship | Cargo | Hour\nHalcyon | timber | six\nMarguerite | salt & coal | nine" in text
    assert text.count("In still air, and by those who wished to hear it.") == 1
    assert "Keep the light.\n\nNothing else is asked of you." in text
    assert all(character.isprintable() or character == "\n" for character in text)


@pytest.mark.parametrize("name", BOOKS)
def test_headings_are_chapters(documents: dict[str, Document], name: str) -> None:
    document = documents[name]
    assert [label for label in chapters(document) if label != "The Lighthouse Book"] == HEADINGS
    for place in document.places:
        assert document.text.startswith(place.label, place.start)
    fact = document.text.index(make_samples.FACTS[2])
    assert document.place_at(fact) == "Chapter 2: The Fog Signal"
    assert document.paragraph_at(fact).heading == "Chapter 2: The Fog Signal"
    end = document.find_place("chapter 2")
    assert end is not None and document.text.startswith("Chapter 3", end)
    end = document.find_place("chapter 1")  # its sections belong to it
    assert end is not None and document.text.startswith("Chapter 2", end)
    assert document.find_place("What was kept in the tower") == document.text.index("What passed in one night")
    assert document.find_place("chapter 4") is None


@pytest.mark.parametrize("name", PDFS)
def test_a_pdf_reads_as_it_was_written(documents: dict[str, Document], name: str) -> None:
    """Hyphens at line ends, lines and page numbers are gone, the running head is read once, paragraphs cross pages."""
    wanted = ["The Lighthouse Book"]
    for number, title in make_samples.TITLES.items():
        wanted += [f"Chapter {number}: {title}", *make_samples.paragraphs(number, 14)]
    found = pieces(documents[name])
    found.remove("Page 1")  # of the feet the first one, after the paragraph that it cuts
    assert found == wanted


@pytest.mark.parametrize("name", PDFS)
def test_pages_and_outline_of_a_pdf(documents: dict[str, Document], name: str) -> None:
    document = documents[name]
    pages = [place for place in document.places if place.kind == "page"]
    assert [place.number for place in pages] == list(range(1, len(pages) + 1)) and len(pages) > 15
    assert chapters(document) == [f"Chapter {number}: {title}" for number, title in make_samples.TITLES.items()]
    lengths = [b.start - a.start for a, b in pairwise(pages)]
    assert min(lengths) > 300
    for place in pages:
        assert document.place_at(place.start) == place.label == f"page {place.number}"
        assert document.find_place(place.label) == (
            pages[place.number].start if place.number < len(pages) else len(document.text)
        )
    assert document.find_place("50%") == round(len(document.text) / 2)
    fact = document.text.index(make_samples.FACTS[2])
    assert document.paragraph_at(fact).heading == "Chapter 2: The Fog Signal"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("encrypted.pdf", "password"),
        ("scanned.pdf", "scanned PDF: pictures of 1 page,"),
        ("libreoffice.doc", "old Office"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, words: str) -> None:
    with pytest.raises(DocumentError, match=words) as caught:
        read_document(SAMPLES / name)
    assert caught.value.exit_code == 65 and caught.value.hint and name in str(caught.value)


def test_pages_without_text_are_said() -> None:
    document = read_document(SAMPLES / "mixed.pdf")
    assert document.notes == ("1 of 3 pages are pictures without text: they were not read.",)
    assert [place.label for place in document.places if place.kind == "page"] == ["page 1", "page 2", "page 3"]
    pages = [place.start for place in document.places if place.kind == "page"]
    assert document.place_at(pages[1]) == "page 2" and pages[2] == len(document.text)


def test_an_epub_without_headings_has_its_contents_file() -> None:
    """LibreOffice writes headings, lists and table heads as plain paragraphs; only its table of contents tells."""
    document = read_document(SAMPLES / "libreoffice.epub")
    wanted = [text for number in (1, 2, 3) for text in make_samples.paragraphs(number, 4)]
    assert [text for text in pieces(document) if text in wanted] == wanted
    titles = [f"Chapter {number}: {title}" for number, title in make_samples.TITLES.items()]
    assert chapters(document) == ["Section 1", *titles]
    assert document.find_place("chapter 1") == document.text.index("Chapter 2")


def test_the_name_of_a_file_says_nothing(documents: dict[str, Document], tmp_path: Path) -> None:
    for name in ("pandoc.epub", "libreoffice.pdf"):
        shutil.copy(SAMPLES / name, tmp_path / "notes.txt")
        assert read_document(tmp_path / "notes.txt").text == documents[name].text


def test_pipes_and_bytes(documents: dict[str, Document]) -> None:
    with open(SAMPLES / "pandoc.docx", "rb") as file:
        assert from_stdin(file).text == documents["pandoc.docx"].text
    data = (SAMPLES / "libreoffice.pdf").read_bytes()
    document = from_bytes(data, title="a book", source="somewhere")
    assert document.digest == documents["libreoffice.pdf"].digest
    assert (document.title, document.parts[0].source) == ("a book", "somewhere")


def test_the_child_knows_encodings_without_opening_files() -> None:
    text = "Das Mädchen aß übermäßig viele Äpfel, sagte er."
    for encoding, head in (
        ("cp1252", "<html>"),
        ("cp1252", "<html><meta charset=windows-1252>"),
        ("utf-16", "<html>"),
        ("iso8859_15", "<html><meta charset='iso-8859-15'>"),
    ):
        assert from_bytes(f"{head}<p>{text}".encode(encoding), title="t", source="s").text == text
    page = "<html><body>Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива"
    assert from_bytes(page.encode("koi8_r"), title="t", source="s").text == page[12:]
    with pytest.raises(DocumentError, match="damaged"):
        from_bytes(b"<html>" + bytes(range(128, 256)) * 30, title="t", source="s")


def test_the_same_book_has_the_same_text_in_most_formats(documents: dict[str, Document]) -> None:
    assert documents["pandoc.epub"].digest == documents["pandoc-2.epub"].digest
    assert documents["pandoc.docx"].digest == documents["libreoffice.docx"].digest
    assert documents["restricted.pdf"].digest == documents["libreoffice.pdf"].digest
