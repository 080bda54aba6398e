"""The text pane, with its position in the line above it."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from longmamba_mlx.tui.rendering import formatting, safe_text
from longmamba_mlx.tui.widgets.text_pane import TextPane


class Reader(Vertical):
    """Hidden until there is a text to show and room or wish for it."""

    def __init__(self) -> None:
        super().__init__()
        self._note = ""
        self._span = (0, 0)

    def compose(self) -> ComposeResult:
        yield Static("", id="where", markup=False)
        yield TextPane()

    @property
    def pane(self) -> TextPane:
        return self.query_one(TextPane)

    @property
    def showing(self) -> bool:
        """Whether the text is on the screen."""
        return bool(self.display) and self.size.height > 0

    def note(self, text: str) -> None:
        """Say something beside the place: "match 3 of 12"; "" takes it away."""
        self._note = text
        self._show()

    @on(TextPane.Moved)
    def _follow(self, message: TextPane.Moved) -> None:
        self._span = (message.start, message.end)
        self._show()

    def _show(self) -> None:
        book = self.pane.book
        if book is None or not book.text:
            self.query_one("#where", Static).update("")
            return
        share = f"{self._span[0] / len(book.text):.0%}" if self._span[1] < len(book.text) else "end"
        parts = [share, self._note, safe_text.one_line(book.place_at(self._span[0]))]
        room = max(self.size.width - 2, 1)
        line = formatting.truncate_join([part for part in parts if part], room)
        self.query_one("#where", Static).update(Content(line))

    def on_resize(self) -> None:
        self._show()
