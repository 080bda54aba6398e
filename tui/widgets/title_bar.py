"""The top line: the program and its model on the left, the document on the right."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Static

from longmamba_mlx.tui.rendering import formatting, safe_text

_MODEL_WIDTHS = ((100, 40), (60, 24), (0, 16))  # from so many cells of the row on, cells of the model's name


class TitleBar(Horizontal):
    """One row."""

    def __init__(self) -> None:
        super().__init__()
        self._model = ""

    def compose(self) -> ComposeResult:
        yield Static("longmamba-mlx", id="program", markup=False)
        yield Static("", id="model", markup=False)
        yield Static("", id="document", markup=False)

    def show(self, title: str) -> None:
        """Name the open document, or what happens to it."""
        self.query_one("#document", Static).update(safe_text.literal(safe_text.one_line(title)))

    def show_model(self, name: str) -> None:
        """Name the model, without the owner of a Hub id and the folders of a path."""
        self._model = safe_text.one_line(name.rstrip("/").rpartition("/")[2])
        self._fit()

    def on_resize(self) -> None:
        self._fit()

    def _fit(self) -> None:
        width = next(cells for least, cells in _MODEL_WIDTHS if self.size.width >= least)
        self.query_one("#model", Static).update(safe_text.literal(formatting.shorten(self._model, width)))
