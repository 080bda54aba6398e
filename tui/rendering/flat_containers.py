"""Containers that skip Textual's per-row background rendering and repeated layouts."""

from __future__ import annotations

from textual.containers import Container, Horizontal, Vertical
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget


class LaidOut(Widget):
    """Accept a new size without the second layout of the whole screen that Textual would do after it."""

    def _size_updated(self, size: Size, virtual_size: Size, container_size: Size, layout: bool = True) -> bool:
        # The second layout is needed only where a scroll bar appears or disappears.
        bar = self.is_scrollable and self.show_vertical_scrollbar != (virtual_size.height > container_size.height)
        return super()._size_updated(size, virtual_size, container_size, layout=bar)


class FlatBackground(LaidOut):
    """Draw the background once for all rows: Textual renders each row, also where children cover all of it.

    For containers without a title; one with a border is drawn as usual. List it after the Textual container: Textual
    takes the default style sheet of the first base.
    """

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Height from the content alone, so that unchanged exchanges are not laid out again as a conversation grows."""
        return super().get_content_height(container.with_height(0), viewport, width)

    def render_lines(self, crop: Region) -> list[Strip]:
        if any(kind for kind, _ in self.styles.border):
            return super().render_lines(crop)
        return filtered(self, [Strip.blank(crop.width, self.rich_style)]) * crop.height


class FlatContainer(Container, FlatBackground):
    """A container whose layout the style sheet sets."""


class FlatHorizontal(Horizontal, FlatBackground):
    """Children side by side."""


class FlatVertical(Vertical, FlatBackground):
    """Children one below the other."""


def filtered(widget: Widget, strips: list[Strip]) -> list[Strip]:
    """Apply the terminal's line filters (NO_COLOR, ANSI) to strips."""
    _, background = widget.background_colors
    for line_filter in widget.get_line_filters():
        strips = [strip.apply_filter(line_filter, background) for strip in strips]
    return strips
