"""Tables as text: a row of short cells is one line, a cell that holds paragraphs gives them one by one."""

from __future__ import annotations

from collections.abc import Iterator

_LONGEST_ROW = 400  # characters
_LONGEST_ITEM = 600


class Row:
    """The cells of one table row, each a list of paragraphs with the heading levels they have (0: none)."""

    def __init__(self) -> None:
        self._cells: list[list[tuple[str, int]]] = []

    def begin_cell(self) -> None:
        self._cells.append([])

    def add(self, text: str, level: int = 0) -> None:
        """A paragraph of the present cell."""
        if not self._cells:
            self.begin_cell()
        self._cells[-1].append((text, level))

    def drop_empty_end(self) -> None:
        """Remove a last cell that was started and never filled."""
        if self._cells and not self._cells[-1]:
            self._cells.pop()

    def paragraphs(self) -> Iterator[tuple[str, int]]:
        """One line "a | b | c", or the cells' paragraphs where that would be no line to read."""
        flat = [" ".join(" ".join(text.split()) for text, _ in cell) for cell in self._cells]
        headed = any(level for cell in self._cells for _, level in cell)
        filled = sum(1 for text in flat if text)
        if filled > 1 and sum(map(len, flat)) <= _LONGEST_ROW and not headed:
            yield " | ".join(flat), 0
        else:
            for cell in self._cells:
                yield from cell


def is_short(text: str) -> bool:
    """Whether a text is short enough to follow the line before it without a blank one."""
    return len(text) <= _LONGEST_ITEM
