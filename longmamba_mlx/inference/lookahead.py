"""Keep the GPU busy: dispatch the next piece of work before waiting for the current one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from longmamba_mlx.ops import numpy_backed

Piece = TypeVar("Piece")


def one_ahead(dispatched: Iterator[Piece]) -> Iterator[Piece]:
    """Yield the same pieces, each after the next one was dispatched (by asking the iterator for it).

    With the NumPy backend nothing runs beside Python, and each piece is yielded at once.
    """
    return dispatched if numpy_backed() else _delayed(dispatched)


def _delayed(dispatched: Iterator[Piece]) -> Iterator[Piece]:
    waiting: list[Piece] = []
    for piece in dispatched:
        waiting.append(piece)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
