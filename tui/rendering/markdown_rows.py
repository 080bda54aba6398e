"""Markdown as rows of styled text, kept up while it grows.

Textual's own Markdown makes a widget of every paragraph and list item: the layout of a few dozen of them took longer
than a frame. Here a block is laid out once, when it is whole; only the last one is laid out again as it grows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from markdown_it import MarkdownIt
from rich import markdown
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.text import Text
from rich.theme import Theme

from longmamba_mlx.tui.rendering.rows import Rows

Row = list[Segment]

FORMATTED = 400  # lines: what comes after them is shown as it stands, which takes a tenth of the time
_LARGE = 1200  # characters from which a list is laid out item by item, not again as a whole
_SLICE = 8192  # characters looked at together
# Without HTML: what looks like a tag is text.
_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
_BLANK = re.compile(r"\n[ \t]*\n")


class _Code(markdown.CodeBlock):
    """Code, indented and unchanged; without colours, which would have to fit each theme."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Padding(Text(str(self.text).rstrip(), "markdown.code_block", overflow="fold"), (0, 0, 0, 2))


class _Heading(markdown.Heading):
    LEVEL_ALIGN: ClassVar = dict.fromkeys(markdown.Heading.LEVEL_ALIGN, "left")


class _Block(markdown.Markdown):
    elements: ClassVar = markdown.Markdown.elements | {"fence": _Code, "code_block": _Code, "heading_open": _Heading}

    def of(self, source: str) -> _Block:
        """Another text, without the parser that rich makes for each: that takes longer than most blocks do."""
        block = copy(self)
        block.parsed = _PARSER.parse(source)
        return block


_EMPTY = _Block("", hyperlinks=False)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A whole block, or an item of a large list. `joined`: no empty row before it; `literal`: shown unchanged."""

    source: str
    joined: bool
    literal: bool


class MarkdownRows:
    """The rows of a text at the width last asked for; the styles are those that rich names "markdown.…"."""

    def __init__(self, source: str = "") -> None:
        self._theme = Theme()
        self._console = Console()
        self._width = 0
        self._whole: list[_Piece] = []
        self._rows: list[Row] = []  # of the whole pieces
        self._lines = 0  # of their source
        self._open = ""  # what follows them: one block, as far as it has come
        self._joined = False
        self._shown: list[Row] | None = None
        self.append(source)

    @property
    def source(self) -> str:
        """All that was appended."""
        return "".join(piece.source for piece in self._whole) + self._open

    def append(self, text: str) -> None:
        """More text at the end."""
        for start in range(0, len(text), _SLICE):
            more = text[start : start + _SLICE]
            self._open += more
            self._shown = None
            if "\n" in more:
                self._settle()

    def restyle(self, theme: Theme) -> None:
        """Other styles from now on."""
        self._theme, self._width, self._shown = theme, 0, None

    def rows(self, width: int) -> list[Row]:
        """All rows; whole blocks are laid out again only where the width is another."""
        if width != self._width:
            self._width, self._shown = width, None
            self._console = Console(width=width, theme=self._theme, force_terminal=True, color_system="truecolor")
            self._rows = []
            for piece in self._whole:
                self._rows += self._laid_out(piece, bool(self._rows))
        if self._shown is None:
            # Block by block, as it will be laid out once each is whole: else rows would move then.
            shown = list(self._rows)
            for piece in self._open_pieces():
                shown += self._laid_out(piece, bool(shown))
            self._shown = shown
        return self._shown

    def _settle(self) -> None:
        """Take what nothing that comes can change any more out of the open text."""
        *whole, last = self._open_pieces()
        for piece in whole:
            self._whole.append(piece)
            self._lines += piece.source.count("\n")
            if self._width:
                self._rows += self._laid_out(piece, bool(self._rows))
        self._open, self._joined = last.source, last.joined

    def _open_pieces(self) -> list[_Piece]:
        """The open text, block by block."""
        starts = [(0, self._joined), *(self._starts() if "\n" in self._open else ()), (len(self._open), False)]
        pieces, lines = [], self._lines
        for (start, joined), (end, _) in pairwise(starts):
            pieces.append(_Piece(self._open[start:end], joined, lines > FORMATTED))
            lines += pieces[-1].source.count("\n")
        return pieces

    def _starts(self) -> Iterator[tuple[int, bool]]:
        """Where further blocks begin in the open text, and whether they go on with the list of the block before."""
        if self._lines > FORMATTED:
            yield from ((match.end(), False) for match in _BLANK.finditer(self._open))
            return
        lines = [0, *(match.end() for match in re.finditer("\n", self._open))]
        by_item = len(self._open) > _LARGE
        for token in _PARSER.parse(self._open):
            if token.map is None or token.map[0] == 0:
                continue
            if token.level == 0:
                yield lines[token.map[0]], False
            elif by_item and token.level == 1 and token.type == "list_item_open":
                yield lines[token.map[0]], True

    def _laid_out(self, piece: _Piece, follows: bool) -> list[Row]:
        """Its rows. `follows`: there are rows before it."""
        rows = _as_it_stands(piece.source, self._width) if piece.literal else self._formatted(piece.source)
        gap: list[Row] = [[]] if rows and follows and not piece.joined else []
        return gap + rows

    def _formatted(self, source: str) -> list[Row]:
        try:
            rows = self._console.render_lines(_EMPTY.of(source), self._console.options, pad=False)
        except Exception:  # a text that cannot be shown as Markdown must not end the chat
            return _as_it_stands(source, self._width)
        filled = [number for number, row in enumerate(rows) if any(segment.text.strip() for segment in row)]
        return rows[filled[0] : filled[-1] + 1] if filled else []


def _as_it_stands(source: str, width: int) -> list[Row]:
    text = source.strip("\n")
    rows = Rows(text, width)
    rows.extend(offset=len(text))
    spans = (rows.span(row) for row in range(rows.height))
    return [[Segment(text[start:end])] for start, end in spans]
