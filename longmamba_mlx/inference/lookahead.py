"""A GPU goes on while Python tells what it has done: work that is begun when it is asked for, one piece ahead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from longmamba_mlx import ops

Piece = TypeVar("Piece")


def ahead(begun: Iterator[Piece]) -> Iterator[Piece]:
    """The same pieces, each given when the next is begun. In NumPy, where nothing runs beside Python, as they come."""
    return begun if ops.numpy_backed() else _one_ahead(begun)


def _one_ahead(begun: Iterator[Piece]) -> Iterator[Piece]:
    waiting: list[Piece] = []
    for piece in begun:
        waiting.append(piece)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
