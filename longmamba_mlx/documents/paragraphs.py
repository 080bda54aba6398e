"""Paragraphs as character offsets; the text itself is not changed."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload


@dataclass(frozen=True, slots=True)
class Paragraph:
    """text[start:end], in characters. `number` counts from 1; `heading` is its chapter, or ""."""

    start: int
    end: int
    number: int
    heading: str


class Paragraphs(Sequence[Paragraph]):
    """All paragraphs of a document; only their offsets are kept, 16 bytes each."""

    def __init__(self, spans: Iterable[tuple[int, int]], heading_at: Callable[[int], str]) -> None:
        self._starts, self._ends = array("Q"), array("Q")
        self._heading_at = heading_at
        for start, end in spans:
            self._starts.append(start)
            self._ends.append(end)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Paragraph: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Paragraph, ...]: ...
    def __getitem__(self, index: int | slice) -> Paragraph | tuple[Paragraph, ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        start = self._starts[index]
        return Paragraph(start, self._ends[index], index % len(self) + 1, self._heading_at(start))

    def __iter__(self) -> Iterator[Paragraph]:
        return map(self.__getitem__, range(len(self)))

    def spans(self) -> Iterator[tuple[int, int]]:
        """(start, end) of each, in order."""
        return zip(self._starts, self._ends, strict=True)

    def before(self, position: int) -> Paragraph:
        """The paragraph that holds the character at `position`, or the last one before it, or the first."""
        return self[max(bisect_right(self._starts, position) - 1, 0)]
