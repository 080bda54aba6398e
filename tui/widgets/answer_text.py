"""The text of an answer: one widget however long it is, so that a token costs no more at its end than at its start."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from rich.style import Style
from rich.theme import Theme
from textual.geometry import Region, Size
from textual.selection import Selection
from textual.strip import Strip

from longmamba_mlx.tui.rendering import safe_text
from longmamba_mlx.tui.rendering.flat_containers import LaidOut, filtered

if TYPE_CHECKING:
    from longmamba_mlx.tui.rendering.markdown_rows import Row

# What rich calls the parts of Markdown, and which of the style sheet's classes they take; the rest looks like text.
_PARTS = {
    "heading": ("h1", "h2", "h3", "h4", "h5", "h6"),
    "code": ("code", "code_block"),
    "quiet": ("item.bullet", "item.number", "list", "block_quote", "hr", "table.border", "link_url"),
}


class AnswerText(LaidOut):
    """Markdown that grows. Nothing in it can be clicked: a link was made up by a model.

    It has no border and no padding: it draws its own lines.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"answer-text--{part}" for part in _PARTS}

    def __init__(self, source: str = "", *, classes: str = "") -> None:
        super().__init__(classes=classes)
        from longmamba_mlx.tui.rendering.markdown_rows import MarkdownRows  # 65 ms that the first frame does not need

        self._text = MarkdownRows(safe_text.markdown(source))
        self._height = 0
        self._styled = False
        self._drawn: dict[int, tuple[Row, Strip]] = {}
        self._drawn_as: tuple[int, Style] = 0, Style.null()

    @property
    def source(self) -> str:
        """The Markdown of it."""
        return self._text.source

    def append(self, text: str) -> None:
        """More text, sanitised."""
        self._text.append(text)
        height = len(self._rows(self.size.width)) if self.size.width else -1
        # A new layout of the whole screen only where a row was added.
        self.refresh(layout=height != self._height)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._styled = False  # the classes' styles come after this call

    def _rows(self, width: int) -> list[Row]:
        if not self._styled:
            self._styled = True
            self._text.restyle(self._theme())
        return self._text.rows(max(width, 1))

    def _theme(self) -> Theme:
        styles: dict[str, str | Style] = {
            "markdown.strong": "bold", "markdown.em": "italic", "markdown.s": "strike", "markdown.link": "underline",
        }  # fmt: skip
        for part, names in _PARTS.items():
            found = self.get_component_rich_style(f"answer-text--{part}")
            style = Style(color=found.color, bold=found.bold)
            styles |= {f"markdown.{name}": style for name in names}
        return Theme(styles)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        self._height = len(self._rows(width))
        return self._height

    def render_lines(self, crop: Region) -> list[Strip]:
        """Not by Textual's cache: all rows move with each frame of an answer, so what can be kept of them is kept."""
        base = self.rich_style
        strips = [self._draw(y, base) for y in crop.line_range]
        if self.text_selection is not None:
            strips = [self._selected(strip, y) for y, strip in enumerate(strips, crop.y)]
        return [strip.crop(*crop.column_span) for strip in filtered(self, strips)]

    def render_line(self, y: int) -> Strip:
        """Record for the mouse which character is in which cell."""
        return self._draw(y, self.rich_style)

    def _draw(self, y: int, base: Style) -> Strip:
        """A row as a strip; of one that has not changed since it was drawn the same strip."""
        width = self.size.width
        rows = self._rows(width)
        if y >= len(rows):
            return Strip.blank(width, base)
        if (width, base) != self._drawn_as:
            self._drawn_as = width, base
            self._drawn.clear()
        before, strip = self._drawn.get(y, (None, None))
        if before is not rows[y] or strip is None:
            strip = Strip(Segment.apply_style(rows[y], base)).adjust_cell_length(width, base).apply_offsets(0, y)
            self._drawn[y] = rows[y], strip
        return strip

    def _selected(self, strip: Strip, y: int) -> Strip:
        selection = self.text_selection
        span = selection.get_span(y) if selection is not None else None
        if span is None:
            return strip
        start, end = span[0], strip.cell_length if span[1] == -1 else span[1]
        before, chosen, after = strip.crop(0, start), strip.crop(start, end), strip.crop(end)
        style = self.screen.get_component_rich_style("screen--selection")
        return Strip.join([before, Strip(Segment.apply_style(chosen, None, style)), after])

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The selected rows, as they are seen."""
        rows = ("".join(segment.text for segment in row).rstrip() for row in self._rows(self.size.width))
        return selection.extract("\n".join(rows)), "\n"
