"""Cutting a text into rows, and taking away the line ends that a page's width made."""

from __future__ import annotations

import textwrap
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from longmamba_mlx.tui.rendering import safe_text
from longmamba_mlx.tui.rendering.rows import Rows
from longmamba_mlx.tui.rendering.unwrap import unwrap

TEXTS = st.text(st.sampled_from("ab é\n日本ü-\u0301👍 .xyz"), max_size=200)


@given(TEXTS, st.integers(2, 40))
@settings(max_examples=300, deadline=None)
def test_rows_hold_the_whole_text_and_none_is_too_wide(text: str, width: int) -> None:
    rows = Rows(text, width)
    rows.extend(offset=len(text))
    assert rows.complete or not text
    spans = [rows.span(row) for row in range(rows.height)] if text else []
    for start, end in spans:
        assert cell_len(text[start:end]) <= width
    # Nothing is lost but blanks and line ends, nothing is there twice.
    between = [text[end:start] for (_, end), (start, _) in pairwise(spans)]
    assert all(not gap.strip(" \n") for gap in between)
    assert "".join(text[start:end] for start, end in spans).replace(" ", "") == text.replace("\n", "").replace(" ", "")


@given(
    st.lists(st.sampled_from(["a", "whale", "sea", "harpooneer", "of"]), min_size=1, max_size=60), st.integers(12, 30)
)
@settings(max_examples=100, deadline=None)
def test_words_are_broken_where_textwrap_breaks_them(words: list[str], width: int) -> None:
    text = " ".join(words)
    rows = Rows(text, width)
    rows.extend(offset=len(text))
    assert [text[slice(*rows.span(row))] for row in range(rows.height)] == textwrap.wrap(text, width)


@given(TEXTS, st.integers(2, 40), st.integers(0, 200))
@settings(max_examples=200, deadline=None)
def test_the_row_of_a_character_holds_it(text: str, width: int, offset: int) -> None:
    rows = Rows(text, width)
    row = rows.row_of(min(offset, len(text)))
    start, _ = rows.span(row)
    following, _ = rows.span(row + 1)
    assert start <= min(offset, len(text)) <= max(following, start)


def test_only_what_is_looked_at_is_cut() -> None:
    text = "A line of a very long book, one of many.\n" * 120_000
    rows = Rows(text, 30)
    assert rows.span(40) != (0, 0)
    assert rows.known < 50 and not rows.complete
    estimated = rows.height
    rows.extend(offset=len(text))
    assert rows.complete and rows.height == 240_000 and abs(estimated - rows.height) < 0.05 * rows.height


def test_a_book_without_line_ends_is_cut_too() -> None:
    text = "日" * 10_000 + "x" * 10_000
    rows = Rows(text, 10)
    rows.extend(offset=len(text))
    assert rows.height == 2_000 + 1_000
    assert (rows.span(rows.height), Rows("", 10).span(0)) == ((20_000, 20_000), (0, 0))


def paragraphs() -> tuple[str, str]:
    """The same prose in lines of 70 characters, and without."""
    words = (
        "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness."
    )
    whole = [f"{number} {words} {words} {words}" for number in range(30)]
    verse = "To be, or not to be:\nthat is the question.\n\n    An indented line\n    another"
    broken = "\n\n".join("\n".join(textwrap.wrap(part, 70)) for part in whole) + "\n\n" + verse
    return broken, "\n\n".join(whole) + "\n\n" + verse


def test_line_ends_made_by_a_page_are_blanks_and_all_others_stay() -> None:
    broken, whole = paragraphs()
    assert unwrap(broken) == whole


@pytest.mark.parametrize("text", ["", "one line", "a\nb\n" * 50, "key: value\n" * 100, f"{'x' * 200}\n" * 50])
def test_lists_logs_and_long_lines_are_left_alone(text: str) -> None:
    assert unwrap(text) == text


@given(st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_every_character_keeps_its_place(text: str) -> None:
    shown = safe_text.one_for_one(text)
    assert len(shown) == len(text) == len(unwrap(text))
    assert "\t" not in shown and "\x1b" not in shown
