"""Places: chapters told from headings but not from a table of contents, and found again by what people call them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longmamba_mlx.documents import Document, Part, Place, join
from longmamba_mlx.documents.numbering import level_of, parse_heading, to_number

PROSE = "It was a bright cold day in April, and the clocks were striking.\nNobody looked up.\n\n" * 6


def labels(text: str) -> list[str]:
    return [place.label for place in Document("t", text).places]


# ------------------------------------------------------------------------------------------------------- numbers


def roman(value: int) -> str:
    """Another way than the code's: by decimal places."""
    tables = (
        ["", "M", "MM", "MMM"],
        ["", "C", "CC", "CCC", "CD", "D", "DC", "DCC", "DCCC", "CM"],
        ["", "X", "XX", "XXX", "XL", "L", "LX", "LXX", "LXXX", "XC"],
        ["", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"],
    )
    return "".join(table[int(digit)] for table, digit in zip(tables, f"{value:04d}", strict=True))


def test_every_roman_number() -> None:
    for value in range(1, 4000):
        assert to_number(roman(value)) == to_number(roman(value).lower()) == value


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("12", 12),
        ("0", 0),
        ("one", 1),
        ("Twelve", 12),
        ("NINETEEN", 19),
        ("twenty", 20),
        ("Twenty-One", 21),
        ("forty two", 42),
        ("ninety-nine", 99),
        ("First", 1),
        ("the Second", 2),
        ("twelfth", 12),
        ("Thirteenth", 13),
        ("the twentieth", 20),
        ("thirty-third", 33),
        ("XXXX", 40),
        ("VIIII", 9),
        ("IIX", 0),
        ("last", 0),
        ("whale", 0),
        ("", 0),
        ("MIX", 1009),
    ],
)
def test_number_words(word: str, value: int) -> None:
    assert to_number(word) == value


@pytest.mark.parametrize(
    ("label", "told"),
    [
        ("CHAPTER XII", ("chapter", 12)),
        ("Book the Second--the Golden Thread", ("book", 2)),
        ("3. Results", ("", 3)),
        ("IV. The Preparation", ("", 4)),
        ("7", ("", 7)),
        ("I Go to Bristol", ("", 0)),
        ("Epilogue", ("epilogue", 0)),
        ("SECOND EPILOGUE", ("epilogue", 2)),
        ("Preface", ("preface", 0)),
        ("3.2 Data", ("", 0)),
        ("Loomings", ("", 0)),
        ("1805", ("", 1805)),
        ("2001: A Space Odyssey", ("", 2001)),
        ("", ("", 0)),
    ],
)
def test_what_headings_tell(label: str, told: tuple[str, int]) -> None:
    assert parse_heading(label) == told


def test_levels() -> None:
    order = ["Volume 1", "Part 1", "Book 1", "Chapter 1", "Scene 1"]
    assert [level_of(label) for label in order] == sorted({level_of(label) for label in order})


# ---------------------------------------------------------------------------------------------- contents and chapters


def book(numbers: range, *, title: str = "CHAPTER {}. Of Things") -> str:
    return "".join(f"{title.format(roman(number))}\n\n{PROSE}" for number in numbers)


@pytest.mark.parametrize("separator", ["\n\n", "\n"])
@pytest.mark.parametrize("more", ["", "Epilogue"])
def test_a_table_of_contents_is_no_chapter(separator: str, more: str) -> None:
    entries = [f"CHAPTER {roman(number)}. Of Things" for number in range(1, 8)] + [more] * bool(more)
    text = f"THE BOOK\n\nCONTENTS\n\n{separator.join(entries)}\n\nA dedication to nobody.\n\n{book(range(1, 8))}"
    text += f"{more}\n\n{PROSE}" * bool(more)
    document = Document("t", text)
    assert [place.label for place in document.places] == entries
    first = text.index(PROSE)
    assert document.places[0].start == text.rindex("CHAPTER I.", 0, first)
    assert document.place_at(text.index("A dedication")) == ""


def test_a_table_of_contents_with_page_numbers_or_other_titles() -> None:
    entries = "\n\n".join(f"Chapter {number}: Of Something Else" for number in range(1, 6))
    found = Document("t", f"{entries}\n\n{book(range(1, 6))}").places
    assert [place.label for place in found] == [f"CHAPTER {roman(number)}. Of Things" for number in range(1, 6)]


def test_books_with_chapters_of_the_same_numbers() -> None:
    contents = "".join(
        f"BOOK {name}\n\n" + "".join(f"CHAPTER {roman(n)}\n\n" for n in range(1, 5)) for name in ("ONE", "TWO")
    )
    text = f"WORK\n\n{contents}" + "".join(
        f"BOOK {name}\n\n\n{book(range(1, 5), title='CHAPTER {}')}" for name in ("ONE", "TWO")
    )
    document = Document("t", text)
    assert [place.number for place in document.places] == [1, 1, 2, 3, 4, 2, 1, 2, 3, 4]
    end = document.find_place("book two, chapter 3")
    assert end is not None and document.place_at(end) == "BOOK TWO, CHAPTER IV"
    assert document.find_place("Book 1") == text.rindex("BOOK TWO")
    end = document.find_place("chapter 3")
    assert end is not None and document.place_at(end - 1) == "BOOK ONE, CHAPTER III"
    assert document.find_place("book 2 chapter 9") is None and document.find_place("book 3") is None


def test_stories_that_each_begin_at_one_keep_their_chapters() -> None:
    text = "".join(f"# Story {letter}\n\n{book(range(1, 5))}" for letter in "ABC").replace("# Story", "Story")
    assert len(Document("t", text).places) == 12


def test_parts_within_books_and_books_within_parts() -> None:
    for outer, inner in (("BOOK", "PART"), ("PART", "BOOK")):
        text = "".join(f"{outer} {name}\n\n{inner} ONE\n\n{PROSE}{inner} TWO\n\n{PROSE}" for name in ("ONE", "TWO"))
        document = Document("t", text)
        assert len(document.places) == 6
        assert document.find_place(f"{outer} one") == text.index(f"{outer} TWO\n\n{inner} ONE")


def test_titles_in_the_next_paragraph() -> None:
    text = f"CHAPTER I\n\nThe Old Sea-dog at the Inn\n\n{PROSE}2\n\nBlack Dog Appears\n\n{PROSE}III.\n\n{PROSE}"
    text += "Chapter 4\n\n“Stop!”\n\n"
    assert labels(text + PROSE) == ["CHAPTER I: The Old Sea-dog at the Inn", "2: Black Dog Appears", "Chapter 4"]


def test_code_in_markdown_is_no_heading() -> None:
    text = (
        f"# Install\n\n{PROSE}```sh\n# not a heading\npip install x\n```\n\n## Use\n\n{PROSE}~~~\n\n# nor this\n~~~\n"
    )
    assert labels(text) == ["Install", "Use"]


def test_short_sections_of_the_same_names_stay() -> None:
    text = "# API\n\n" + "## Name\n\nshort\n\n## Type\n\nshort\n\n## Use\n\nshort\n\n" * 2 + f"# More\n\n{PROSE * 20}"
    assert len(labels(text)) == 8


def test_unnumbered_headings_are_counted() -> None:
    document = Document(
        "t", f"# Title\n\n## Setup\n\n{PROSE}## Running\n\n### Details\n\n{PROSE}## 3.1 The end\n\n{PROSE}"
    )
    assert [place.number for place in document.places] == [0, 1, 2, 0, 3]
    assert document.find_place("chapter 1") == document.text.index("## Running")
    assert document.find_place("running") == document.text.index("## 3.1")
    assert document.find_place("section 3.1") == document.find_place("3.1") == len(document.text)
    assert document.find_place("TITLE") == len(document.text)


# ---------------------------------------------------------------------------------------------------------- asking


def paged() -> Document:
    text = "".join(f"Page text {number} of the report.\n\n" for number in range(1, 13))
    starts = [text.index(f"Page text {number} ") for number in range(1, 13)]
    marks = [Place(start, "page", f"page {number}", number) for number, start in enumerate(starts, 1)]
    marks += [Place(starts[3], "chapter", "2 Method", 0), Place(starts[8], "chapter", "3 Results", 0)]
    part = Part("r.pdf", "r.pdf", 0, len(text), tuple(sorted(marks, key=lambda mark: mark.start)))
    return Document("r.pdf", text, "r.pdf", (part,))


def test_pages_and_chapters() -> None:
    document = paged()
    assert document.place_at(document.text.index("text 5")) == "page 5"
    for wanted in ("page 5", "p. 5", "p5", "Page  5", "PAGE V"):
        assert document.find_place(wanted) == document.text.index("Page text 6")
    for wanted in ("chapter 2", "ch. 2", "ch 2", "section 2", "§2", "method", "2 Method"):
        assert document.find_place(wanted) == document.text.index("Page text 9")
    assert document.find_place("page 12") == document.find_place("chapter 3") == len(document.text)
    for wanted in (
        "page 13",
        "page 0",
        "chapter 9",
        "",
        " ",
        "whale",
        "-1%",
        "0%",
        "101%",
        "%",
        "50",
        "page",
        "book 2",
    ):
        assert document.find_place(wanted) is None, wanted
    assert document.find_place("100%") == len(document.text)
    assert document.find_place("12.5 %") == round(len(document.text) / 8)


def test_several_files() -> None:
    one, two = paged(), Document("notes.md", f"# Day One\n\n{PROSE}# Day Two\n\n{PROSE}", "notes.md")
    both = join([one, two])
    assert [place.label for place in both.places if place.kind == "file"] == ["r.pdf", "notes.md"]
    start = len(one.text) + 2
    assert both.place_at(start) == "notes.md, Day One"
    assert both.place_at(0) == "r.pdf, page 1"
    assert both.paragraph_at(start - 4).heading == "3 Results" and both.paragraph_at(start + 20).heading == "Day One"
    assert both.find_place("r.pdf") == both.find_place("file 1") == len(one.text)
    assert both.find_place("chapter 3") == len(one.text)
    assert both.find_place("Day One") == start + two.text.index("# Day Two")
    assert both.find_place("page 12") == len(one.text)
    assert join([two, one]).place_at(0) == "notes.md, Day One"
    headless = Document("plain.txt", PROSE)
    assert join([one, headless]).place_at(len(one.text) + 5) == "plain.txt"


def test_hostile_places() -> None:
    document = paged()
    for wanted in ("(" * 99, "a" * 100_000, "chapter " * 5000, "\\", "[", "page 9" * 999, "\x00", "½%", "٣", "page ٣"):
        document.find_place(wanted)
    assert document.place_at(-5) == "page 1" or document.place_at(-5) == ""
    assert document.place_at(10**9) == "page 12"


WORDS = [
    "CHAPTER ",
    "I",
    "II",
    "X",
    "BOOK ",
    "ONE",
    "PART",
    " 3",
    "# ",
    "## ",
    "\n",
    "\n\n",
    "7\n\n",
    "text. ",
    "The Title",
    "===",
    "```\n",
    "---",
    "Epilogue",
    "\n\nI. The ",
    "Contents",
    "Prologue\n\n",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=40).map("".join).filter(str.strip), min_size=1, max_size=3))
def test_places_of_any_text(texts: list[str]) -> None:
    """Sorted, within the text, at the beginning of a paragraph; every place is found again by its label."""
    document = join([Document(f"file {number}", text) for number, text in enumerate(texts)])
    starts = [place.start for place in document.places]
    assert starts == sorted(starts) and all(0 <= start < len(document.text) for start in starts)
    paragraphs = {paragraph.start for paragraph in document.paragraphs}
    for place in document.places:
        assert place.kind == "file" or place.start in paragraphs
        end = document.find_place(place.label)
        assert end is not None and 0 < end <= len(document.text)
    chance = random.Random(len(document.text))
    for _ in range(5):
        position = chance.randrange(len(document.text))
        before = [place for place in document.places if place.start <= position and place.kind == "chapter"]
        part = document.part_at(position)
        if before and before[-1].start >= part.start:
            assert document.place_at(position).endswith(before[-1].label)
        assert document.paragraph_at(position).start <= max(position, document.paragraphs[0].start)
