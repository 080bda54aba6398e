"""A long text wrapped to a width, lazily: rows are found from the front, as far as they are needed.

A row is text[start:end] in characters. The text up to the end of the screen is cut into rows; the rest is estimated,
until `extend` has reached the end.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right

from rich.cells import get_character_cell_size

# Everything else is one cell wide: Latin, Greek, Cyrillic, common punctuation, currencies, arrows, boxes.
_NOT_ONE_CELL = re.compile(
    "[^\x00-\u02ff\u0370-\u0482\u048a-\u058f\u1e00-\u1fff\u2010-\u2027\u2030-\u205e\u20a0-\u20bf]"
)
_SLICE = 4096  # characters looked at for the width of a text without line ends


class Rows:
    """The rows of `text` at `width` cells (at least 1). Lines break after a blank, else anywhere."""

    def __init__(self, text: str, width: int) -> None:
        self.text = text
        self.width = max(width, 1)
        self._starts = array("Q", [0] if text else [])
        self._line_end = -1  # of the source line that the last row belongs to
        self._one_cell = True  # whether all characters of that line are one cell wide
        self.complete = not text
        self._plain = text.isascii()

    @property
    def known(self) -> int:
        """How many rows are certain; the last one may still grow until `complete`."""
        return len(self._starts) if self.complete else len(self._starts) - 1

    @property
    def height(self) -> int:
        """The total number of rows: exact when `complete`, else estimated from the known ones."""
        if self.complete or len(self._starts) < 2:
            return max(len(self._starts), 1)
        return max(round(len(self._starts) * len(self.text) / self._starts[-1]), len(self._starts))

    def extend(self, row: int = 0, offset: int = 0) -> None:
        """Find rows until `row` and the row that holds the character `offset` are certain, or the text ends."""
        starts = self._starts
        while not self.complete and (len(starts) <= row + 1 or starts[-1] <= offset):
            self._next()

    def row_of(self, offset: int) -> int:
        """The row that holds the character at `offset`."""
        self.extend(offset=offset)
        return max(bisect_right(self._starts, offset) - 1, 0)

    def span(self, row: int) -> tuple[int, int]:
        """Start and end of a row, without the line end and the blanks before it; (len, len) after the last one."""
        self.extend(row)
        length = len(self.text)
        if not 0 <= row < len(self._starts):
            return length, length
        start = self._starts[row]
        end = self._starts[row + 1] if row + 1 < len(self._starts) else length
        while end > start and self.text[end - 1] in " \n\t":
            end -= 1
        return start, end

    def starts_line(self, row: int) -> bool:
        """Whether a source line starts with this row."""
        start, _ = self.span(row)
        return start == 0 or self.text[start - 1] == "\n"

    def _next(self) -> None:
        """Add the row after the last one."""
        text, start = self.text, self._starts[-1]
        if self._line_end < start:
            found = text.find("\n", start)
            self._line_end = len(text) if found < 0 else found
            self._one_cell = self._plain or _NOT_ONE_CELL.search(text, start, self._line_end) is None
        cut = self._cut(start, self._line_end)
        if cut < self._line_end:
            self._starts.append(cut)
        elif self._line_end + 1 < len(text):
            self._starts.append(self._line_end + 1)
            self._line_end = -1
        else:
            self.complete = True

    def _cut(self, start: int, end: int) -> int:
        """The end of the row that starts at `start`, within the source line that ends at `end`."""
        limit = self._fitting(start, end)
        if limit >= end:
            return end
        blank = self.text.rfind(" ", start, limit + 1)
        return blank + 1 if blank > start else max(limit, start + 1)

    def _fitting(self, start: int, end: int) -> int:
        """The first character from `start` on that does not fit into the width any more."""
        if self._one_cell:
            return min(start + self.width, end)
        room = self.width
        for position in range(start, min(end, start + _SLICE)):
            room -= get_character_cell_size(self.text[position])
            if room < 0:
                return position
        return end if end <= start + _SLICE else start + _SLICE
