"""The conversation: follows what is new while it is at its bottom, and stays where the reader scrolled."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from longmamba_mlx.tui import plain
from longmamba_mlx.tui.exchange_view import ExchangeView, Stage
from longmamba_mlx.tui.note import ErrorNote, Note

_WELCOME = Content.assemble(
    "The document is read once, to its end, and questioned from memory.\n",
    ("Questions asked meanwhile wait their turn. Nothing leaves this machine.\n", plain.DIM),
    ("A small model can be wrong: look at the passages under an answer.", plain.DIM),
)


class ChatLog(VerticalScroll, can_focus=False):
    """Notes and exchanges, in the order they came."""

    def compose(self) -> ComposeResult:
        # As high as the log at least: an anchored scroll view shifts content that is shorter than itself.
        with Vertical(id="items"):
            yield Static(_WELCOME, id="welcome", markup=False)

    def on_mount(self) -> None:
        self.anchor()

    @property
    def exchanges(self) -> list[ExchangeView]:
        """All exchanges, oldest first."""
        return list(self.query(ExchangeView))

    @property
    def _items(self) -> Vertical:
        return self.query_one("#items", Vertical)

    async def add(self, widget: Widget, *, follow: bool = False) -> None:
        """Put a widget at the end. `follow`: go there even when the reader has scrolled up."""
        await self._items.mount(widget)
        if follow:
            self.anchor()

    async def note(self, text: str) -> None:
        """Say something worth knowing; it stands before the questions that have not had their turn."""
        waiting = next((view for view in self.exchanges if view.stage is Stage.WAITING), None)
        await self._items.mount(Note(text), before=waiting)

    async def error(self, message: str, hint: str | None) -> None:
        """Say what went wrong."""
        await self.add(ErrorNote(message, hint), follow=True)

    async def clear(self) -> None:
        """Take away all that is over; what waits or runs stays."""
        over = [view for view in self.exchanges if view.stage is Stage.DONE]
        await self._items.remove_children([*over, *self.query(Note), *self.query(ErrorNote)])
