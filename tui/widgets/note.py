"""Notes and errors in the conversation."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from longmamba_mlx.tui.rendering import safe_text


class Note(Static):
    """A message for the user."""

    def __init__(self, text: str, *, classes: str = "") -> None:
        super().__init__(safe_text.literal(safe_text.one_line(text)), classes=classes, markup=False)


class ErrorNote(Static):
    """An error in one line, with its hint."""

    def __init__(self, message: str, hint: str | None) -> None:
        super().__init__(error_text(message, hint), markup=False)


def error_text(message: str, hint: str | None) -> Content:
    """The mark, not only the colour, says that it is an error."""
    return Content.assemble(
        ("✗ ", "bold $text-error"),
        (safe_text.one_line(message), "$text-error"),
        (f"  {safe_text.one_line(hint)}" if hint else "", safe_text.DIM),
    )
