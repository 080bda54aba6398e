"""The memory map: one strip over the whole document, high and bright where the filter kept much of the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from longmamba_mlx.tui.rendering import formatting, safe_text
from longmamba_mlx.tui.worker.snapshot import Book, RegionLike

_HEIGHTS = " ▁▂▃▄▅▆▇█"
_STEPS = len(_HEIGHTS) - 1
_TAIL = 0.05  # of the columns at either end of the scale: a few outliers do not flatten the others
_LEAST_SPAN = 0.02  # of the share kept, between the ends of the scale
_COARSE = 0.1  # between the ends of the scale, from which they need no decimals
_PLACE_WIDTH = 30  # cells of a place in the line that describes a column
_LABEL = "memory map  "
_LABEL_FROM, _LEGEND_FROM = 60, 40  # cells of the row from which there is room for the label, and for the legend
_DARKEST = 0.25  # how bright the least kept stretch is: the strip has to be seen as one


@dataclass(frozen=True, slots=True)
class Column:
    """One cell of the strip: text[start:end], the mean `kept` of its stretches, and its first place."""

    start: int
    end: int
    kept: float
    place: str


class MemoryMap(Widget, can_focus=True):
    """Left, right and the mouse choose a column; Enter or a click goes there."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"memory-map--kept", "memory-map--label", "memory-map--seen"}
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
        """Show the text from `offset` on."""

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
        self._scale = (0.0, 1.0)

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
        regions = self._book.regions if self._book else ()
        self._scale = scale(regions, max(self.size.width, 1))
        room = self.size.width - len(self._label) - len(self._legend)
        self._columns = columns(regions, max(room, 0))
        self.refresh()

    @property
    def _label(self) -> str:
        return _LABEL if self.size.width >= _LABEL_FROM else ""

    @property
    def _legend(self) -> str:
        """The legend: the values of the lowest and the highest cell."""
        if self.size.width < _LEGEND_FROM:
            return ""
        low, high = self._scale
        kept = " kept by the filter" if self.size.width >= 2 * _LABEL_FROM else " kept"
        digits = 0 if high - low >= _COARSE else 1
        return f"  {_HEIGHTS[1]} {low:.{digits}%}  {_HEIGHTS[-1]} {high:.{digits}%}{kept}"

    def render_line(self, y: int) -> Strip:
        """Label, strip, legend. Height and brightness say the same, so that it is read without colours too."""
        base = self.rich_style
        if not self._columns or y:
            return Strip.blank(self.size.width, base)
        low, high = self._scale
        levels = [
            min(max(1 + round((column.kept - low) / (high - low) * (_STEPS - 1)), 1), _STEPS)
            for column in self._columns
        ]
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
        quiet = base + Style(color=self.get_component_rich_style("memory-map--label").color)
        row = [Segment(self._label, quiet), *Segment.simplify(segments), Segment(self._legend, quiet)]
        return Strip(row).adjust_cell_length(self.size.width, base)

    def _colours(self) -> list[str]:
        """One per height: from what can just be seen to the full colour."""
        kept = self.get_component_styles("memory-map--kept").color
        _, ground = self.background_colors
        return [ground.blend(kept, _DARKEST + (1 - _DARKEST) * step / _STEPS).hex6 for step in range(_STEPS + 1)]

    # Pointing and choosing.

    def on_mouse_move(self, event: events.MouseMove) -> None:
        self._point(event.x - len(self._label))

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
        self._point(event.x - len(self._label))
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
            f"{column.kept:.1%} kept by the filter",
            f"{column.start / max(length, 1):.0%} of the text",
            formatting.shorten(safe_text.one_line(column.place), _PLACE_WIDTH),
        ]
        return " · ".join(part for part in parts if part)


def scale(regions: Sequence[RegionLike], width: int) -> tuple[float, float]:
    """The shares kept at the lowest and at the highest cell of `width` columns, without their outliers."""
    kept = sorted(column.kept for column in columns(tuple(regions), width))
    if not kept:
        return 0.0, 1.0
    tail = int(len(kept) * _TAIL)
    low, high = kept[tail], kept[-1 - tail]
    if high - low < _LEAST_SPAN:
        low = min(max((low + high - _LEAST_SPAN) / 2, 0.0), 1.0 - _LEAST_SPAN)
        high = low + _LEAST_SPAN
    return low, high


def columns(regions: tuple[RegionLike, ...], width: int) -> tuple[Column, ...]:
    """The regions spread over `width` columns, each the mean of those that fall into it."""
    found = []
    for number in range(width if regions else 0):
        first = number * len(regions) // width
        own = regions[first : max((number + 1) * len(regions) // width, first + 1)]
        mean = sum(region.kept for region in own) / len(own)
        found.append(Column(own[0].start, own[-1].end, mean, own[0].place))
    return tuple(found)
