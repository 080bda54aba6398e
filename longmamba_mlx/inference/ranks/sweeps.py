"""How a document is divided: into sweeps, which are read one after the other, and a sweep into a span for each rank."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from longmamba_mlx.inference.pieces import Piece

SPAN_BYTES = 128 << 20  # of the activations that a rank holds at once


@dataclass(frozen=True, slots=True)
class Sweep:
    """A stretch of the document that all ranks read together: its pieces, one after the other."""

    pieces: tuple[Piece, ...]

    @property
    def start(self) -> int:
        return self.pieces[0][0]

    @property
    def stop(self) -> int:
        return self.pieces[-1][1]

    def span(self, rank: int, size: int) -> tuple[Piece, ...]:
        """The pieces of one rank of `size`, as many as any other's or one less; none where there are too few."""
        count = len(self.pieces)
        return self.pieces[count * rank // size : count * (rank + 1) // size]

    def first(self, rank: int, size: int) -> int:
        """The first token of a rank's span, even if it is empty."""
        at = len(self.pieces) * rank // size
        return self.pieces[at][0] if at < len(self.pieces) else self.stop


def cut(pieces: Sequence[Piece], marks: Collection[int], most: int) -> list[Sweep]:
    """Cut pieces into sweeps of at most `most` pieces each, which end where a piece ends at one of `marks`.

    Between two marks all sweeps are equally long, or one piece shorter.
    """
    ends = set(marks)
    sweeps: list[Sweep] = []
    start = 0
    for number, (_, stop) in enumerate(pieces, 1):
        if stop in ends or number == len(pieces):
            sweeps += _equal(pieces[start:number], most)
            start = number
    return sweeps


def most_pieces(width: int, chunk: int, size: int) -> int:
    """Pieces of `chunk` tokens in a sweep of `size` ranks whose activations are `width` float32 values a token."""
    return size * max(1, SPAN_BYTES // (4 * width * chunk))


def _equal(pieces: Sequence[Piece], most: int) -> list[Sweep]:
    parts, count = -(-len(pieces) // most), len(pieces)
    return [Sweep(tuple(pieces[count * part // parts : count * (part + 1) // parts])) for part in range(parts)]
