"""The top line: the program on the left, the document on the right."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Static

from longmamba_mlx.tui.rendering import safe_text


class TitleBar(Horizontal):
    """One row."""

    def compose(self) -> ComposeResult:
        yield Static("longmamba-mlx", id="program", markup=False)
        yield Static("", id="document", markup=False)

    def show(self, title: str) -> None:
        """Name the open document, or what happens to it."""
        self.query_one("#document", Static).update(safe_text.literal(safe_text.one_line(title)))
