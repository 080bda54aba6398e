"""Collect the text, places and notes of a parsed file; refuse files that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass

from longmamba_mlx.documents.places import Kind, Place, ordered
from longmamba_mlx.documents.sanitise import clean, one_line

MOST_TEXT = 256 << 20  # characters
MOST_PLACES = 200_000


class Refused(Exception):
    """Raised for a file that cannot be read: `code` is a key of `documents.refusals`, `detail` one word or number."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.code, self.detail = code, detail


@dataclass(frozen=True, slots=True)
class Parsed:
    """A reader's result: clean text, its places in order, and notes for the user."""

    text: str
    marks: tuple[Place, ...] = ()
    notes: tuple[str, ...] = ()


class TextBuilder:
    """Text with marks: paragraphs in order, a blank line between them. Raises Refused when there is too much."""

    def __init__(self, limit: int = MOST_TEXT) -> None:
        self._pieces: list[str] = []
        self._marks: list[Place] = []
        self._limit = limit
        self._notes: dict[str, None] = {}
        self.position = 0
        """Where the next paragraph will begin, or within one the next character."""

    def paragraph(self, text: str, *, tight: bool = False) -> None:
        """One more paragraph; `tight`: on the line after the last one, as items of a list are."""
        text = clean(text).strip("\n")
        if not text.strip():
            return
        if tight and self._pieces and self._pieces[-1] == "\n\n":
            self._pieces[-1] = "\n"
            self.position -= 1
        self.write(text)
        self.end_paragraph()

    def write(self, text: str) -> None:
        """More of the present paragraph, clean already."""
        if text:
            self._pieces.append(text)
            self.position += len(text)
            if self.position > self._limit:
                raise Refused("too-large")

    def end_paragraph(self) -> None:
        """End the present paragraph."""
        if self._pieces and self._pieces[-1] != "\n\n":
            self.write("\n\n")

    def mark(self, kind: Kind, label: str, number: int = 0, level: int = 1, *, at: int | None = None) -> None:
        """Mark the start of a place, here or at position `at`."""
        label = one_line(clean(label))
        if label:
            self._marks.append(Place(self.position if at is None else at, kind, label, number, level))
        if len(self._marks) > MOST_PLACES:
            raise Refused("too-large")

    def note(self, line: str) -> None:
        """Add a line for the user on what was guessed or left out; the same line only once."""
        self._notes[line] = None

    def add(self, parsed: Parsed) -> None:
        """Append another parsed text with its places and notes."""
        start = self.position
        for place in parsed.marks:
            self.mark(place.kind, place.label, place.number, place.level, at=start + place.start)
        self.write(parsed.text)
        self.end_paragraph()
        for line in parsed.notes:
            self.note(line)

    @property
    def text(self) -> str:
        """All that was written so far."""
        return "".join(self._pieces)

    def finish(self) -> Parsed:
        """Return all that was written. Raises Refused if that is nothing."""
        while self._pieces and not self._pieces[-1].strip():
            self._pieces.pop()
        text = "".join(self._pieces)
        if not text:
            raise Refused("empty")
        end = len(text)
        marks = ordered(
            place if place.start <= end else Place(end, place.kind, place.label, place.number, place.level)
            for place in self._marks
        )
        return Parsed(text, marks, tuple(self._notes))
