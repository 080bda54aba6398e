"""What spares the time of widgets that are many or large, above all of containers that show nothing of their own."""

from __future__ import annotations

from textual.containers import Container, Horizontal, Vertical
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget


class LaidOut(Widget):
    """Takes the size it is given: after every change of a size Textual would lay the whole screen out once more."""

    def _size_updated(self, size: Size, virtual_size: Size, container_size: Size, layout: bool = True) -> bool:
        # Once more is right only where a scroll bar has to come or to go.
        bar = self.is_scrollable and self.show_vertical_scrollbar != (virtual_size.height > container_size.height)
        return super()._size_updated(size, virtual_size, container_size, layout=bar)


class Ground(LaidOut):
    """Its background, once for all rows: Textual draws each of them, also where other widgets lie over all of it.

    For containers without title; one with a border is drawn as usual. Named after the other base: Textual takes the
    style sheet of the first one.
    """

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """What it holds tells its height, not what it lies in: what has not changed is not laid out as a talk grows."""
        return super().get_content_height(container.with_height(0), viewport, width)

    def render_lines(self, crop: Region) -> list[Strip]:
        if any(kind for kind, _ in self.styles.border):
            return super().render_lines(crop)
        return filtered(self, [Strip.blank(crop.width, self.rich_style)]) * crop.height


class GroundContainer(Container, Ground):
    """A container of the layout that the style sheet says."""


class GroundHorizontal(Horizontal, Ground):
    """One beside the other."""


class GroundVertical(Vertical, Ground):
    """One below the other."""


def filtered(widget: Widget, strips: list[Strip]) -> list[Strip]:
    """The strips without the colours that the terminal or NO_COLOR does not want."""
    _, background = widget.background_colors
    for line_filter in widget.get_line_filters():
        strips = [strip.apply_filter(line_filter, background) for strip in strips]
    return strips
