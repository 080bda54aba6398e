"""Reorder tables that a PDF draws column by column into rows, and leave columns of prose alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

_BASELINE = 0.3  # of the font size: cells that differ less stand in one row
_LONGEST = 30  # characters of a cell: lines of prose are longer
_RAGGED = 0.8  # of the widest cell: lines of prose are nearly as wide as each other
_STEP = 6.0  # font sizes from one row to the next, at most
_FEWEST_ROWS, _FEWEST_CELLS = 2, 6


class _Piece(Protocol):
    @property
    def text(self) -> str: ...
    @property
    def left(self) -> float: ...
    @property
    def right(self) -> float: ...
    @property
    def base(self) -> float: ...
    @property
    def size(self) -> float: ...


Piece = TypeVar("Piece", bound=_Piece)


def by_rows(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces in reading order, cells of a table row by row."""
    found: list[Piece] = []
    table: list[list[Piece]] = []
    for column in _columns(pieces):
        if table and not _stands_beside(column, table):
            found += _in_order(table)
            table = []
        table.append(column)
    return found + _in_order(table)


def _columns(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Runs of pieces below each other."""
    runs: list[list[Piece]] = []
    for piece in pieces:
        last = runs[-1][-1] if runs else None
        if last is not None and 0 < last.base - piece.base < _STEP * last.size and _overlap(last, piece):
            runs[-1].append(piece)
        else:
            runs.append([piece])
    return runs


def _overlap(one: Piece, other: Piece) -> bool:
    return one.left < other.right and other.left < one.right


def _stands_beside(column: list[Piece], table: list[list[Piece]]) -> bool:
    """Whether every cell of a column is in a row of the table before it, and on its right."""
    edge = max(cell.right for cell in table[-1])
    bases = [cell.base for cell in table[0]]
    return min(cell.left for cell in column) > edge and all(
        any(abs(cell.base - base) < _BASELINE * cell.size for base in bases) for cell in column
    )


def _in_order(table: list[list[Piece]]) -> list[Piece]:
    cells = [cell for column in table for cell in column]
    rows = len(table[0]) if table else 0
    long = any(len(cell.text) > _LONGEST for cell in cells)
    if len(table) < 2 or rows < _FEWEST_ROWS or len(cells) < _FEWEST_CELLS or long or not any(map(_is_ragged, table)):
        return cells
    bases = [cell.base for cell in table[0]]
    return sorted(cells, key=lambda cell: (_nearest(bases, cell.base), cell.left))


def _is_ragged(column: list[Piece]) -> bool:
    widths = [cell.right - cell.left for cell in column]
    return min(widths) < _RAGGED * max(widths) or all(_is_number(cell.text) for cell in column[1:])


def _is_number(text: str) -> bool:
    return sum(map(str.isdigit, text)) * 2 >= len(text)


def _nearest(bases: list[float], base: float) -> int:
    return min(range(len(bases)), key=lambda index: abs(bases[index] - base))
