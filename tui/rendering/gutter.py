"""The gutter of the text: page numbers and chapter marks beside their first rows."""

from __future__ import annotations

from longmamba_mlx.tui.worker.snapshot import Book

_WIDE, _NARROW = 8, 2
_ROOM_FROM = 60  # cells of the whole pane, from which there is room for page numbers


def width(pane: int) -> int:
    """Cells of the margin of a pane this wide, with the line and the blank at its end."""
    return _WIDE if pane >= _ROOM_FROM else _NARROW


def label(book: Book, start: int, end: int) -> str:
    """The label beside text[start:end]: "p. 12", "§ 3", "" if no place starts there."""
    marks = {"page": "p.", "chapter": "§", "file": "▤"}
    label = ""
    for place in book.places_in(start, end):
        number = f" {place.number}" if place.number > 0 else ""
        label = f"{marks.get(place.kind, '§')}{number}"
    return label
