"""Where in the text a token stands, and how much of each stretch of the text the filter kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.events import Region

ALL_KEPT = 255  # a token's byte in a memory map: the share of units that kept it, 255 for all of them


@dataclass(frozen=True, eq=False)
class TextMap:
    """Token numbers and the character offsets they begin at, (k,) int64 each, both ascending; linear in between.

    The first entry is the document's beginning (its first token comes after a chat template's opening), the last its
    end. Exact where the tokenizer's windows meet, within a few characters of the average elsewhere.
    """

    tokens: NDArray[np.int64]
    characters: NDArray[np.int64]

    def character(self, token: int) -> int:
        """The offset where the token with this number begins."""
        after = int(np.searchsorted(self.tokens, token, "right"))
        if not 0 < after < len(self.tokens):
            return int(self.characters[min(after, len(self.tokens) - 1)])
        first, last = (int(self.tokens[index]) for index in (after - 1, after))
        begin, end = (int(self.characters[index]) for index in (after - 1, after))
        return begin + (end - begin) * (token - first) // (last - first)

    def fits(self, tokens: int, characters: int) -> bool:
        """Whether it ends where a document of so many tokens and characters does."""
        return int(self.tokens[-1]) == tokens and int(self.characters[-1]) == characters

    def array(self) -> NDArray[np.int64]:
        """(2, k): tokens, characters."""
        return np.stack([self.tokens, self.characters])

    @classmethod
    def from_array(cls, array: NDArray[np.int64]) -> TextMap:
        """The inverse of `array`. Raises ValueError for numbers that cannot be such a map."""
        array = np.asarray(array, np.int64)
        if array.ndim != 2 or array.shape[0] != 2 or not array.shape[1]:
            raise ValueError("its map of the text has an impossible shape")
        if (array < 0).any() or (np.diff(array, axis=1) < 0).any():
            raise ValueError("its map of the text does not ascend")
        return cls(array[0], array[1])


def regions(
    kept: NDArray[np.uint8], text_map: TextMap, count: int, place_at: Callable[[int], str] = lambda offset: ""
) -> tuple[Region, ...]:
    """Cut a document of kept (tokens,) into at most `count` stretches of equal length in tokens."""
    first, last = int(text_map.tokens[0]), int(text_map.tokens[-1])
    count = min(count, last - first)
    if count < 1 or last > len(kept):
        return ()
    edges = np.linspace(first, last, count + 1).astype(int)
    found = []
    for start, end in pairwise(edges):
        begin = text_map.character(int(start))
        share = float(kept[start:end].mean()) / ALL_KEPT
        found.append(Region(begin, text_map.character(int(end)), share, place_at(begin)))
    return tuple(found)
