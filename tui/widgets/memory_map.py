"""One strip over the whole document: bright where the filter let much of the text into the long memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from longmamba_mlx.tui.rendering import safe_text
from longmamba_mlx.tui.worker.snapshot import Book, RegionLike

_HEIGHTS = " ▁▂▃▄▅▆▇█"
_STEPS = len(_HEIGHTS) - 1
_DARKEST = 0.25  # how bright the least kept stretch is: the strip has to be seen as one


@dataclass(frozen=True, slots=True)
class Column:
    """One cell of the strip: text[start:end], the mean of its stretches' `kept`, the place it begins in."""

    start: int
    end: int
    kept: float
    place: str


class MemoryMap(Widget, can_focus=True):
    """Left, right and the mouse choose a column; Enter or a click goes there."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"memory-map--kept", "memory-map--seen"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "Back", show=False),
        Binding("right", "move(1)", "On", show=False),
        Binding("home", "move(-100000)", "Beginning", show=False),
        Binding("end", "move(100000)", "End", show=False),
        Binding("enter,space", "choose", "Go there", show=False),
        Binding("escape", "leave", "Back to the prompt", show=False),
    ]

    @dataclass
    class Chosen(Message):
        """The text from `offset` on is wanted."""

        offset: int

    @dataclass
    class Pointed(Message):
        """The cursor is on this stretch; "" when it left."""

        text: str

    class Left(Message):
        """Back to the prompt."""

    def __init__(self) -> None:
        super().__init__()
        self._book: Book | None = None
        self._columns: tuple[Column, ...] = ()
        self._cursor: int | None = None
        self._seen = (0, 0)

    def open(self, book: Book | None) -> None:
        """Show another book's map; one of which nothing was filtered has none."""
        self._book, self._cursor, self._seen = book, None, (0, 0)
        self.set_class(bool(book and book.regions), "-shown")
        self._divide()

    def see(self, start: int, end: int) -> None:
        """Mark what the text pane shows."""
        self._seen = (start, end)
        self.refresh()

    def on_resize(self) -> None:
        self._divide()

    def _divide(self) -> None:
        self._columns = columns(self._book.regions if self._book else (), self.size.width)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """The strip: height and brightness say the same, so that it is read without colours too."""
        base = self.rich_style
        if not self._columns or y:
            return Strip.blank(self.size.width, base)
        most = max(column.kept for column in self._columns) or 1.0
        levels = [max(round(column.kept / most * _STEPS), 1) for column in self._columns]
        styles = [base + Style(color=colour) for colour in self._colours()]
        seen = Style(bgcolor=self.get_component_rich_style("memory-map--seen").bgcolor)
        segments = []
        for number, (column, level) in enumerate(zip(self._columns, levels, strict=True)):
            style = styles[level]
            if column.start < self._seen[1] and column.end > self._seen[0]:
                style += seen
            if number == self._cursor:
                style += Style(reverse=True)
            segments.append(Segment(_HEIGHTS[level], style))
        return Strip(Segment.simplify(segments)).adjust_cell_length(self.size.width, base)

    def _colours(self) -> list[str]:
        """One per height: from what can just be seen to the full colour."""
        kept = self.get_component_styles("memory-map--kept").color
        _, ground = self.background_colors
        return [ground.blend(kept, _DARKEST + (1 - _DARKEST) * step / _STEPS).hex6 for step in range(_STEPS + 1)]

    # Pointing and choosing.

    def on_mouse_move(self, event: events.MouseMove) -> None:
        self._point(event.x)

    def on_leave(self) -> None:
        if not self.has_focus:
            self._point(None)

    def on_blur(self) -> None:
        self._point(None)

    def on_focus(self) -> None:
        if self._cursor is None:
            here = (n for n, column in enumerate(self._columns) if column.end > self._seen[0])
            self._point(next(here, 0))

    def on_click(self, event: events.Click) -> None:
        self._point(event.x)
        self.action_choose()

    def action_move(self, step: int) -> None:
        self._point((self._cursor or 0) + step)

    def action_choose(self) -> None:
        """Go to the stretch under the cursor."""
        if self._cursor is not None and self._columns:
            self.post_message(self.Chosen(self._columns[self._cursor].start))

    def action_leave(self) -> None:
        self.post_message(self.Left())

    def _point(self, cursor: int | None) -> None:
        if cursor is not None:
            cursor = min(max(cursor, 0), len(self._columns) - 1) if self._columns else None
        self._cursor = cursor
        said = self._describe(self._columns[cursor]) if cursor is not None else ""
        self.tooltip = safe_text.literal(said) if said else None
        self.post_message(self.Pointed(said))
        self.refresh()

    def _describe(self, column: Column) -> str:
        length = len(self._book.text) if self._book and self._book.text else column.end
        parts = [
            f"{column.start / max(length, 1):.0%} of the text",
            safe_text.one_line(column.place),
            f"the filter kept {column.kept:.1%} here",
        ]
        return " · ".join(part for part in parts if part)


def columns(regions: tuple[RegionLike, ...], width: int) -> tuple[Column, ...]:
    """The regions spread over `width` columns, each the mean of those that fall into it."""
    found = []
    for number in range(width if regions else 0):
        first = number * len(regions) // width
        own = regions[first : max((number + 1) * len(regions) // width, first + 1)]
        mean = sum(region.kept for region in own) / len(own)
        found.append(Column(own[0].start, own[-1].end, mean, own[0].place))
    return tuple(found)
