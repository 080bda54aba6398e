"""Token ids cut into the pieces that a model call reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.filtering import FilterPlan
from longmamba_mlx.ops.token_ids import token_ids


class Ids(Protocol):
    """Token ids (S,) uint32: an array, or a file that is read in slices."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> NDArray[np.uint32]: ...


Piece = tuple[int, int]
"""The first token of a piece and the one after its last."""


def pieces_from(first: int, total: int, chunk: int, plan: FilterPlan | None) -> Iterator[Piece]:
    """Yield the pieces of at most `chunk` tokens from `first` on. They end at multiples of `chunk` in the document, so
    that reading on from any of those gives the same pieces, and at the edges of a protected part."""
    start = first
    while start < total:
        stop = min((start // chunk + 1) * chunk, total if plan is None else plan.next_edge(start))
        yield start, stop
        start = stop


def read_piece(ids: Ids, piece: Piece, vocabulary: int) -> mx.array:
    """The ids (1, l) of a piece. Raises ModelError for one outside the vocabulary."""
    return token_ids(np.asarray(ids[slice(*piece)], np.uint32)[None], vocabulary)


def read_pieces(ids: Ids, chunk: int, plan: FilterPlan | None, vocabulary: int, first: int = 0) -> Iterator[mx.array]:
    """Yield the ids of all pieces from token `first` on, (1, l) each. Raises as `read_piece`."""
    for piece in pieces_from(first, len(ids), chunk, plan):
        yield read_piece(ids, piece, vocabulary)
