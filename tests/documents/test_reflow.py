"""Lines of a page -> paragraphs: what is joined, what is parted, what is page furniture."""

from __future__ import annotations

import pytest

from longmamba_mlx.documents.formats.builder import TextBuilder
from longmamba_mlx.documents.formats.furniture import without_furniture
from longmamba_mlx.documents.formats.lines import Line, Page, marked, whole_lines
from longmamba_mlx.documents.formats.reflow import reflow

LEFT, RIGHT, SIZE, LEADING = 50.0, 350.0, 10.0, 12.0


def page(*lines: str, top: float = 700.0, furniture: tuple[str, str] | None = None) -> Page:
    """Lines as set: "" leaves a gap, a leading ">" indents, a trailing "|" ends before the margin, "-" is a hyphen."""
    found, base = [], top
    for text in lines:
        base -= LEADING
        if not text:
            continue
        left = LEFT + 1.5 * SIZE * text.startswith(">")
        right = LEFT + 150 if text.endswith("|") else RIGHT
        size = 18.0 if text.startswith("!") else SIZE
        base -= 20 if size > SIZE else 0
        plain = text.strip("!>|")
        found.append(Line(plain.removesuffix("-"), left, right, base, size, plain.endswith("-")))
    if furniture:
        found.insert(0, Line(furniture[0], LEFT, RIGHT, 760.0, SIZE))
        found.append(Line(furniture[1], 200, 210, 30.0, SIZE))
    return Page(found, False)


PROSE = page(*(f"prose that fills the line, number {number}," for number in range(20)))


def text_of(*pages: Page) -> str:
    out = TextBuilder()
    reflow(list(pages), out)
    return out.finish().text


def test_lines_are_joined_and_gaps_part() -> None:
    assert text_of(page("one two", "three four", "end.|", "", "next", "one")) == "one two three four end.\n\nnext one"


def test_indents_part() -> None:
    assert (
        text_of(page("full line.", ">next begins", "and goes on.|", ">third"))
        == "full line.\n\nnext begins and goes on.\n\nthird"
    )


def test_hyphens() -> None:
    lines = [
        "the light-",
        "house is well-",
        "known, and well-known things are Anglo-",
        "Saxon; a light-",
        "ship, a well-",
        "being",
    ]
    assert (
        text_of(page(*lines))
        == "the lighthouse is well-known, and well-known things are Anglo-Saxon; a lightship, a well-being"
    )


def test_verse_and_lists_keep_their_lines() -> None:
    verse = ["How doth the little|", "Improve his shining tail|", "And pour the waters|"]
    assert (
        text_of(page(*verse), PROSE).split(" prose")[0]
        == "How doth the little\nImprove his shining tail\nAnd pour the waters"
    )
    assert (
        text_of(page("Things:|", "• a coil of rope that is", "long enough|", "• a lamp|"))
        == "Things:\n• a coil of rope that is long enough\n• a lamp"
    )


def test_headings_of_another_size_stand_alone() -> None:
    assert (
        text_of(page("text before it", "!A Heading", "text after it")) == "text before it\n\nA Heading\n\ntext after it"
    )


@pytest.mark.parametrize(
    ("last", "first", "joined"),
    [
        ("goes on", "and on", True),
        ("It ends.|", "Another", False),
        ("It ends.", "maybe", True),
        ("No end|", "here", True),
        ("with-", "out", True),
    ],
)
def test_paragraphs_over_pages(last: str, first: str, joined: bool) -> None:
    found = text_of(page("some text", last), page(first, "more text"), PROSE)
    assert ("\n\n" not in found) is joined


def test_pages_begin_where_they_begin() -> None:
    out = TextBuilder()
    starts = reflow([page("a b", "c"), Page([], True), page("d", "", "e"), page("f")], out)
    parsed = out.finish()
    assert [(mark.label, mark.start) for mark in parsed.marks] == list(
        zip(["page 1", "page 2", "page 3", "page 4"], starts, strict=True)
    )
    assert [parsed.text[start : start + 1] for start in starts] == ["a", "", "d", "f"] or starts == sorted(starts)


def body(pages: list[Page]) -> list[list[str]]:
    """The text of each page's lines, those that stand alone in brackets."""
    return [
        [f"[{line.text}]" if line.alone else line.text for line in lines] for lines in without_furniture(pages).pages
    ]


def test_running_heads_are_read_once_and_page_numbers_left_out() -> None:
    pages = [page(f"body {n} text", f"and {n} more of it", furniture=("The Book", str(n + 7))) for n in range(5)]
    first, *others = body(pages)
    assert first == ["[The Book]", "body 0 text", "and 0 more of it"]
    assert others == [[f"body {n} text", f"and {n} more of it"] for n in range(1, 5)]
    assert without_furniture(pages).left_out == 9
    parts = [
        page(f"Chapter {2 * n}", f"text {n * n}", furniture=(f"Part {n // 3} of it", f"Page {n} of 9"))
        for n in range(9)
    ]
    heads = [line for lines in body(parts) for line in lines if line.startswith("[")]
    assert heads == ["[Part 0 of it]", "[Page 0 of 9]", "[Part 1 of it]", "[Part 2 of it]"]
    assert body([page("Only once", "is this")]) == [["Only once", "is this"]]


@pytest.mark.parametrize(
    "number", ["{}", "- {} -", "Page {}", "page {} of 9", "{} / 9", "Seite {} von 9", "p. {}", "стр. {}"]
)
def test_page_numbers(number: str) -> None:
    pages = [page(f"a{n}", f"b{n}", "c", f"d{n}", f"e{n}", furniture=("Head", number.format(n))) for n in range(1, 7)]
    assert body(pages)[3] == ["a4", "b4", "c", "d4", "e4"]


def test_roman_page_numbers_and_two_pages() -> None:
    pages = [page(f"a{word}", "b", f"z{word}", furniture=("Head", word)) for word in ("iv", "v", "vi")]
    assert body(pages) == [["[Head]", "aiv", "b", "ziv"], ["av", "b", "zv"], ["avi", "b", "zvi"]]
    two = [page(f"a{n}", f"b{n}", f"c{n}", f"d{n}", furniture=("Letterhead", f"- {n} -")) for n in (1, 2)]
    assert body(two) == [["[Letterhead]", "a1", "b1", "c1", "d1"], ["a2", "b2", "c2", "d2"]]


def test_no_page_is_emptied_and_no_line_that_differs_is_lost() -> None:
    slides = [page(f"Exhibit {n}") for n in range(1, 6)]
    assert body(slides) == [[f"Exhibit {n}"] for n in range(1, 6)]
    numbers = [page(str(n)) for n in range(1, 6)]
    assert body(numbers) == [[str(n)] for n in range(1, 6)]
    invoices = [
        page(f"Invoice {n}", "to be paid", f"by {n}", "at once", "in cash", f"No. {n * n}") for n in range(1, 6)
    ]
    assert [lines[0] for lines in body(invoices)][1:] == [
        f"[Invoice {n}]" if n == 0 else f"Invoice {n}" for n in range(2, 6)
    ]
    same = [page("one", "two", "three", "four", "five", "six")] * 4
    assert [[line.strip("[]") for line in lines] for lines in body(same)] == [
        ["one", "two", "three", "four", "five", "six"]
    ] * 4


def test_a_head_waits_for_the_end_of_the_paragraph() -> None:
    pages = [page(f"it goes{n}", f"on{n} and", furniture=(f"Head {n // 4}", str(n))) for n in range(8)]
    text = text_of(*pages)
    assert text.startswith("Head 0\n\nit goes0 on0 and it goes1 on1 and") and text.endswith("on7 and\n\nHead 1")


def test_pieces_of_one_line_are_one() -> None:
    cells = [Line("Ship", 50, 80, 600, 10), Line("Cargo", 150, 190, 600, 10), Line("Halcyon", 50, 90, 588, 10)]
    assert [line.text for line in whole_lines(cells)] == ["Ship  Cargo", "Halcyon"]
    item = [Line("•", 50, 53, 600, 10), Line("a coil of rope", 70, 140, 600, 10)]
    assert [line.text for line in whole_lines(item)] == ["• a coil of rope"]


def test_rows_of_a_table_stay_rows() -> None:
    table = [("Name", "Code", "City"), ("Varnok", "48213", "Oslo"), ("Ennoby", "", "Rome")]
    cells = [
        Line(text, 50 + 100 * column, 50 + 100 * column + 6 * len(text), 600 - 12 * row, 10)
        for row, texts in enumerate(table)
        for column, text in enumerate(texts)
        if text
    ]
    assert [line.text for line in whole_lines(cells)] == [
        "Name | Code | City",
        "Varnok | 48213 | Oslo",
        "Ennoby | Rome",
    ]
    by_columns = sorted(cells, key=lambda cell: cell.left)
    assert [line.text for line in whole_lines(by_columns)] == [line.text for line in whole_lines(cells)]
    before, after = page("prose before it."), page("prose after", "it.", top=540)
    assert text_of(Page([*before.lines, *cells, *after.lines], False)) == (
        "prose before it.\n\nName | Code | City\nVarnok | 48213 | Oslo\nEnnoby | Rome\n\nprose after it."
    )


def test_columns_of_prose_stay_columns() -> None:
    columns = [
        Line(f"column {column} of prose, line {row}", 50 + 200 * column, 230 + 200 * column, 600 - 12 * row, 10)
        for column in range(2)
        for row in range(6)
    ]
    assert [line.text for line in whole_lines(columns)] == [line.text for line in columns]


@pytest.mark.parametrize(
    ("before", "mark", "text"),
    [
        ("word", "1", "word[1]"), ("48213", "2", "48213^2"), ("m", "2", "m^2"), ("end.", "12", "end.[12]"),
        ("1", "st", "1st"), ("name", "a", "name[a]"), ("word", "*", "word*"), ("", "7", "7"),
    ],
)  # fmt: skip
def test_raised_marks(before: str, mark: str, text: str) -> None:
    assert before + marked(before, mark) == text
    if before:
        line = [Line(before, 50, 80, 600, 10), Line(mark, 80, 84, 604, 6), Line("goes on", 90, 130, 600, 10)]
        assert [found.text for found in whole_lines(line)] == [f"{text} goes on"]


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        ("the light-", "house", "the lighthouse"),
        ("sixty-", "five", "sixty-five"),
        ("self-", "made", "self-made"),
        ("an x-", "ray", "an x-ray"),
        ("Anglo-", "Saxon", "Anglo-Saxon"),
        ("ABC-", "123", "ABC-123"),
        ("pages 10-", "12", "pages 10-12"),
        ("Haupt-", "und Nebensatz", "Haupt- und Nebensatz"),
        ("bitter-", "sweet", "bitter-sweet"),  # as both are words of this text
    ],
)
def test_hyphens_join_what_was_one_word(first: str, second: str, joined: str) -> None:
    lines = page(first, second, "it was bitter and it was sweet and so it went on.")
    assert text_of(lines).startswith(joined)
