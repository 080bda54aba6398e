"""Map tokens to character offsets, and the kept shares of tokens to stretches of the text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.events import Region

ALL_KEPT = 255  # a token's kept share is a byte: 255 where all filterable units kept it


@dataclass(frozen=True, eq=False)
class TextMap:
    """Token numbers and their start offsets in characters, (k,) int64 each, both ascending; interpolated in between.

    The first entry is the beginning of the document (its first token comes after the prompt's opening), the last its
    end. Exact at the entries, within a few characters elsewhere.
    """

    tokens: NDArray[np.int64]
    characters: NDArray[np.int64]

    def character(self, token: int) -> int:
        """The start offset of a token, in characters."""
        after = int(np.searchsorted(self.tokens, token, "right"))
        if not 0 < after < len(self.tokens):
            return int(self.characters[min(after, len(self.tokens) - 1)])
        first, last = (int(self.tokens[index]) for index in (after - 1, after))
        begin, end = (int(self.characters[index]) for index in (after - 1, after))
        return begin + (end - begin) * (token - first) // (last - first)

    def fits(self, tokens: int, characters: int) -> bool:
        """Whether the map ends at this number of tokens and of characters."""
        return int(self.tokens[-1]) == tokens and int(self.characters[-1]) == characters

    def array(self) -> NDArray[np.int64]:
        """The map as one array (2, k): tokens, characters."""
        return np.stack([self.tokens, self.characters])

    @classmethod
    def from_array(cls, array: NDArray[np.int64]) -> TextMap:
        """The inverse of `array`. Raises ValueError for an invalid map."""
        array = np.asarray(array, np.int64)
        if array.ndim != 2 or array.shape[0] != 2 or not array.shape[1]:
            raise ValueError("its text map has an invalid shape")
        if (array < 0).any() or (np.diff(array, axis=1) < 0).any():
            raise ValueError("its text map does not ascend")
        return cls(array[0], array[1])


def regions(
    kept: NDArray[np.uint8], text_map: TextMap, count: int, place_at: Callable[[int], str] = lambda offset: ""
) -> tuple[Region, ...]:
    """Split a document with kept shares (tokens,) into at most `count` regions of equally many tokens."""
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
