"""Lines of a page -> paragraphs: what is joined, what is parted, what is page furniture."""

from __future__ import annotations

import pytest

from longmamba_mlx.documents.formats.builder import TextBuilder
from longmamba_mlx.documents.formats.lines import Line, Page, body
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
        == "the lighthouse is well-known, and well-known things are Anglo-Saxon; a lightship, a wellbeing"
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


def test_furniture_goes_and_text_stays() -> None:
    pages = [page(f"body {n} text", f"and {n} more of it", furniture=("The Book", str(n + 7))) for n in range(5)]
    assert not any("The Book" in line.text or line.text.isdecimal() for lines in body(pages) for line in lines)
    chapters = [
        page(f"Chapter {2 * n}", f"text {n * n}", furniture=(f"Part {n // 3} of it", f"Page {n} of 9"))
        for n in range(9)
    ]
    kept = [line.text for lines in body(chapters) for line in lines]
    assert kept == [text for n in range(9) for text in (f"Chapter {2 * n}", f"text {n * n}")]
    alone = [page("Only once", "is this")]
    assert [line.text for line in body(alone)[0]] == ["Only once", "is this"]


def test_roman_page_numbers_and_two_pages() -> None:
    pages = [page(f"a{word}", "b", f"z{word}", furniture=("Head", word)) for word in ("iv", "v", "vi")]
    assert [[line.text for line in lines] for lines in body(pages)] == [
        [f"a{word}", "b", f"z{word}"] for word in ("iv", "v", "vi")
    ]
    two = [page(f"a{n}", f"b{n}", f"c{n}", f"d{n}", furniture=("Letterhead", f"- {n} -")) for n in (1, 2)]
    assert [line.text for line in body(two)[0]] == ["a1", "b1", "c1", "d1"]


def test_pieces_of_one_line_are_one() -> None:
    cells = [Line("Ship", 50, 80, 600, 10), Line("Cargo", 150, 190, 600, 10), Line("Halcyon", 50, 90, 588, 10)]
    assert [line.text for line in body([Page(cells, False)])[0]] == ["Ship  Cargo", "Halcyon"]
