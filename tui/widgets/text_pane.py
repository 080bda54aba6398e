"""The document's text, of any length: only the rows on the screen are drawn."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from longmamba_mlx.tui.rendering import gutter
from longmamba_mlx.tui.rendering.rows import Rows
from longmamba_mlx.tui.worker.snapshot import Book

WIDEST = 92  # cells: longer rows are hard to follow
_AT_ONCE = 1 << 20  # characters cut into rows before the first drawing
_SLICE_ROWS = 4000  # rows found at a time afterwards

_GROUNDS = ("passage", "found")  # what is highlighted by its background

Span = tuple[int, int]


class TextPane(ScrollView, can_focus=True):
    """Scrolls, highlights a passage and search matches, and reports its position."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "text-pane--gutter",
        "text-pane--place",
        "text-pane--heading",
        "text-pane--passage",
        "text-pane--quote",
        "text-pane--found",
        "text-pane--here",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "leave", "Back to the conversation", show=False),
        Binding("n", "step(1)", "Next match", show=False),
        Binding("N,shift+n", "step(-1)", "Previous match", show=False),
        Binding("right_square_bracket", "place(1)", "Next chapter or page", show=False),
        Binding("left_square_bracket", "place(-1)", "Previous chapter or page", show=False),
        Binding("slash", "find", "Find", show=False),
    ]

    @dataclass
    class Moved(Message):
        """The text from `start` to `end` is on the screen now."""

        start: int
        end: int

    class Left(Message):
        """Go back to the prompt."""

    class FindWanted(Message):
        """Request a search."""

    @dataclass
    class Step(Message):
        """Go to the next (1) or the previous (-1) match."""

        step: int

    def __init__(self) -> None:
        super().__init__()
        self.book: Book | None = None
        self._rows = Rows("", 1)
        self._passage: Span | None = None
        self._quote: Span | None = None
        self._found: list[Span] = []
        self._here: Span | None = None
        self._wanted: int | None = None

    # What the screen tells it.

    def open(self, book: Book | None) -> None:
        """Show another text, from its beginning."""
        self.book = book
        self._passage = self._quote = self._here = None
        self._found = []
        self._cut_rows(top=0)

    def mark(self, passage: Span | None, quote: Span | None = None) -> None:
        """Highlight a passage, and within it the words of the answer, and bring it to the screen."""
        self._passage, self._quote = passage, quote
        self.refresh()
        if passage is not None:
            self.jump(quote[0] if quote else passage[0])

    def show_found(self, found: list[Span], here: Span | None) -> None:
        """Highlight what was found, ascending, and bring one of them to the screen."""
        self._found, self._here = found, here
        self.refresh()
        if here is not None:
            self.jump(here[0])

    def jump(self, offset: int) -> None:
        """Bring the character at `offset` to the screen; when the pane is hidden, as soon as it is not."""
        if not self.size.height or not self.size.width:
            self._wanted = offset
            return
        row = self._rows.row_of(offset)
        top, height = self.scroll_offset.y, self.size.height
        if not top + 1 < row < top + height - 3:
            self._fit_height()
            self.scroll_to(y=max(row - height // 3, 0), animate=False, force=True)
        self._tell()

    @property
    def on_screen(self) -> Span:
        """The characters on the screen."""
        top = self.scroll_offset.y
        return self._rows.span(top)[0], self._rows.span(top + max(self.size.height - 1, 0))[1]

    # Rows.

    def on_resize(self) -> None:
        if self._rows.width != self._text_width():
            self._cut_rows(top=self._rows.span(self.scroll_offset.y)[0] if self._rows.text else 0)
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            self.jump(wanted)
        self._tell()

    def _text_width(self) -> int:
        return max(min(self.size.width - gutter.width(self.size.width) - 1, WIDEST), 8)

    def _cut_rows(self, top: int) -> None:
        self._rows = Rows(self.book.text if self.book else "", self._text_width())
        self._rows.extend(offset=min(_AT_ONCE, len(self._rows.text)))
        row = self._rows.row_of(top)
        self._fit_height()
        self.scroll_to(y=row, animate=False, force=True)
        self.refresh()
        if not self._rows.complete:
            self.set_timer(0.02, self._cut_on)
        self._tell()

    def _cut_on(self) -> None:
        """Cut more rows while idle; the height is corrected once, at the end."""
        self._rows.extend(row=self._rows.known + _SLICE_ROWS)
        if self._rows.complete:
            self._fit_height()
        else:
            self.set_timer(0.02, self._cut_on)

    def _fit_height(self) -> None:
        self.virtual_size = Size(0, self._rows.height)

    # Drawing.

    def render_line(self, y: int) -> Strip:
        """Render one row: the place in the gutter, then the text with its highlights."""
        row = self.scroll_offset.y + y
        base = self.rich_style
        start, end = self._rows.span(row)
        if self.book is None or start >= len(self._rows.text):
            return Strip.blank(self.size.width, base)
        text = self._rows.text[start:end]
        segments = [
            *self._gutter(self.book, row, start, max(end, start + 1)),
            *self._highlighted(text, start, base + self._line_style(start, end), row),
        ]
        return Strip(segments).adjust_cell_length(self.size.width, base).apply_offsets(-self._indent, row)

    @property
    def _indent(self) -> int:
        return gutter.width(self.size.width)

    def _gutter(self, book: Book, row: int, start: int, end: int) -> list[Segment]:
        base = self.rich_style
        marked = self._passage is not None and start < self._passage[1] and end > self._passage[0]
        label = gutter.label(book, start, end) if self._rows.starts_line(row) else ""
        bar, quiet = self._style("quote" if marked else "gutter"), self._style("place")
        room = self._indent - 2
        return [
            Segment(label.rjust(room)[:room] if room > 0 else "", base + quiet),
            Segment("▌ " if marked else "│ ", base + bar),
        ]

    def _style(self, name: str) -> Style:
        """A style of the style sheet; the background only of those that are there for it."""
        style = self.get_component_rich_style(f"text-pane--{name}")
        if name in _GROUNDS:
            return style
        return Style(color=style.color, bold=style.bold, reverse=style.reverse)

    def _line_style(self, start: int, end: int) -> Style:
        book = self.book
        if book is not None and any(place.kind != "page" for place in book.places_in(start, end)):
            return self._style("heading")
        return Style.null()

    def _highlighted(self, text: str, start: int, base: Style, row: int) -> list[Segment]:
        """Split the text at the ends of highlights; a later highlight covers an earlier one."""
        spans = self._spans(start, text)
        layers = [(span, self._style(name)) for span, name in spans]
        if (selected := self._selected(row, len(text))) is not None:
            layers.append((selected, self.screen.get_component_rich_style("screen--selection")))
        cuts = sorted({0, len(text), *(edge for span, _ in layers for edge in span)})
        segments = []
        for left, right in pairwise(cuts):
            style = base
            for (first, last), over in layers:
                if first <= left and right <= last:
                    style += over
            segments.append(Segment(text[left:right], style))
        return segments

    def _spans(self, start: int, text: str) -> list[tuple[Span, str]]:
        """The highlights in a row, in characters of the row."""
        found = bisect_left(self._found, start, key=lambda span: span[1])
        spans: list[tuple[Span | None, str]] = [(self._passage, "passage"), (self._quote, "quote")]
        while found < len(self._found) and self._found[found][0] < start + len(text):
            spans.append((self._found[found], "found"))
            found += 1
        spans.append((self._here, "here"))
        inside = [((max(s[0] - start, 0), min(s[1] - start, len(text))), name) for s, name in spans if s is not None]
        return [(span, name) for span, name in inside if span[0] < span[1]]

    def _selected(self, row: int, length: int) -> Span | None:
        selection = self.text_selection
        span = selection.get_span(row) if selection is not None else None
        if span is None:
            return None
        return max(min(span[0], length), 0), length if span[1] == -1 else max(min(span[1], length), 0)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The selected text of the document, without the line breaks of the wrapping."""
        if self.book is None:
            return None
        start, end = 0, len(self._rows.text)
        if selection.start is not None:
            start = self._offset(selection.start.y, selection.start.x)
        if selection.end is not None:
            end = self._offset(selection.end.y, selection.end.x)
        return self._rows.text[start:end], "\n"

    def _offset(self, row: int, x: int) -> int:
        start, end = self._rows.span(row)
        return min(start + max(x, 0), end)

    # Where it is, and keys.

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if round(old_value) != round(new_value):
            self._tell()

    def _tell(self) -> None:
        if self.is_mounted and self.size.height:
            self.post_message(self.Moved(*self.on_screen))

    def action_leave(self) -> None:
        self.post_message(self.Left())

    def action_step(self, step: int) -> None:
        self.post_message(self.Step(step))

    def action_find(self) -> None:
        self.post_message(self.FindWanted())

    def action_place(self, step: int) -> None:
        """Go to the next or the previous chapter or page."""
        if self.book is None:
            return
        target = self.book.next_place(self.on_screen[0], step)
        if target is not None:
            self.scroll_to(y=self._rows.row_of(target), animate=False, force=True)

    def action_page_down(self) -> None:
        """At once: a movement takes longer than a held key waits, and its frames take time from the reading."""
        self.scroll_page_down(animate=False)

    def action_page_up(self) -> None:
        self.scroll_page_up(animate=False)

    def on_key(self, event: events.Key) -> None:
        if event.key == "space":
            self.action_page_down()
            event.stop()
