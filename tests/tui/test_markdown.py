"""Answers as rows: however the pieces came, the rows are those of the whole; long ones stay cheap."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.style import Style
from rich.theme import Theme

from longmamba_mlx.tui.rendering.markdown_rows import FORMATTED, MarkdownRows

TEXT = """# Head

It is **Ahab** who `x[0]` and <b>x</b> [/

- a
- b
  - c

1. one
2. two

```py
x = 1

y
```

> quote

| a | b |
|---|---|
| 1 | 2 |

[l](http://x.y)
end"""
PARTS = (
    "# h\n",
    "word ",
    "**b",
    "** ",
    "\n",
    "\n\n",
    "- i\n",
    "  - j\n",
    "2. k\n",
    "```\n",
    "> q\n",
    "|a|b|\n|-|-|\n",
    "[x]: y\n",
)


def shown(text: MarkdownRows, width: int) -> list[str]:
    return ["".join(segment.text for segment in row).rstrip() for row in text.rows(width)]


def test_the_parts_of_markdown() -> None:
    rows = shown(MarkdownRows(TEXT), 40)
    assert rows[:3] == ["Head", "", "It is Ahab who x[0] and <b>x</b> [/"]
    for wanted in (" • b", "    • c", " 2 two", "  x = 1", "▌ quote", " 1  2", "l (http://x.y) end"):
        assert wanted in rows
    assert all(len(row) <= 40 for row in rows)


@given(st.lists(st.sampled_from(PARTS), max_size=30), st.integers(8, 60))
@example(["|a|b|\n|-|-|\n", "** ", "** "], 8)
@settings(max_examples=200, deadline=None)
def test_pieces_make_the_rows_of_the_whole(parts: list[str], width: int) -> None:
    pieces = MarkdownRows()
    for part in parts:
        pieces.append(part)
        pieces.rows(width)
    whole = MarkdownRows("".join(parts))
    assert pieces.source == whole.source == "".join(parts)
    assert shown(pieces, width) == shown(whole, width)
    assert shown(pieces, width + 5) == shown(whole, width + 5)


def test_a_block_is_laid_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    laid_out: list[str] = []
    formatted = MarkdownRows._formatted
    monkeypatch.setattr(
        MarkdownRows, "_formatted", lambda rows, text: (laid_out.append(text), formatted(rows, text))[1]
    )
    text = MarkdownRows()
    for number in range(200):
        text.append(f"Paragraph {number}.\n\n" if number < 100 else f"- item {number} of a long list\n")
        text.rows(60)
    # Twice at most: as the open block, and when it is whole. A long list counts as its items.
    assert sum(map(len, laid_out)) < 4 * len(text.source) + 200 * 1300
    laid_out.clear()
    text.append("more")
    text.rows(60)
    assert len(laid_out) == 1 and len(laid_out[0]) < 1300


def test_what_is_very_long_is_shown_as_it_stands() -> None:
    text = MarkdownRows("\n\n".join(["A **line**."] * 1000))
    rows = shown(text, 60)
    assert rows[0] == "A line." and rows[-1] == "A **line**." and len(rows) == 1999
    assert FORMATTED * 0.9 < rows.index("A **line**.") < FORMATTED * 1.2


def test_other_styles_and_a_text_without_words() -> None:
    text = MarkdownRows("**b**")
    text.rows(10)
    text.restyle(Theme({"markdown.strong": Style(color="red")}))
    style = text.rows(10)[0][0].style
    assert style is not None and style.color is not None and style.color.name == "red"
    assert MarkdownRows(" \n\n ").rows(10) == [] and MarkdownRows().rows(3) == []
