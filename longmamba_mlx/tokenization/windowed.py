"""Tokenise a long text in windows, with exactly the ids that the whole text would give.

Normalisers, pre-tokenizers and merges are local. So neighbouring windows overlap, and are joined in the middle of a run
of tokens in which both agree, id by id and character by character. Where they do not agree (a long run of one
character, a tokenizer with a wider context), the window grows, at worst to the whole text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

WINDOW = 1 << 16  # characters
OVERLAP = 1 << 9  # characters that two windows share
PLACES_APART = 1 << 10  # tokens between two whose character offsets are recorded
AGREED = 16  # tokens in a row in which both windows must agree; they are joined in the middle of them


class Encoding(Protocol):
    """A text's tokens, as the `tokenizers` library gives them."""

    @property
    def ids(self) -> list[int]: ...
    def token_to_chars(self, token_index: int, /) -> tuple[int, int] | None:
        """The first character of a token and the one after its last."""
        ...


@dataclass(frozen=True, slots=True)
class EncodedPart:
    """The next ids (n,) of a text, up to character `end`.

    places (2, k) int64: token numbers within this part (the first is 0) and the characters those tokens begin at.
    """

    ids: NDArray[np.uint32]
    places: NDArray[np.int64]
    end: int


def encode_parts(
    encode: Callable[[str], Encoding], pieces: Iterable[str], *, window: int = WINDOW, overlap: int = OVERLAP
) -> Iterator[EncodedPart]:
    """Tokenise a text given in pieces of any size, holding little more than one window of it in memory."""
    source = _Source(pieces)
    first, skip, length = 0, 0, window  # the window's first character; its tokens already yielded; its length
    text, at_end = source.window(first, length)
    encoding = encode(text)
    while not at_end:
        ahead = _break_before(text, len(text) - overlap)
        following, next_at_end = source.window(first + ahead, window)
        next_encoding = encode(following)
        seam = _seam(encoding, next_encoding, ahead, skip)
        if seam is None:
            length *= 2
            text, at_end = source.window(first, length)
            encoding = encode(text)
            continue
        yield _part(encoding, skip, seam.left, first, first + seam.character)
        first, skip, length = first + ahead, seam.right, window
        text, at_end, encoding = following, next_at_end, next_encoding
        source.forget(first)
    yield _part(encoding, skip, len(encoding.ids), first, first + len(text))


class _Source:
    """A text that arrives in pieces and is dropped from its beginning."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = iter(pieces)
        self._held, self._start, self._ended = "", 0, False

    def window(self, first: int, length: int) -> tuple[str, bool]:
        """text[first : first + length], and whether it reaches the end."""
        more = []
        have = self._start + len(self._held)
        while have <= first + length and not self._ended:  # one character further, to know the end
            piece = next(self._pieces, None)
            if piece is None:
                self._ended = True
            else:
                more.append(piece)
                have += len(piece)
        if more:
            self._held = "".join((self._held, *more))
        offset = first - self._start
        return self._held[offset : offset + length], have <= first + length

    def forget(self, before: int) -> None:
        if before - self._start > WINDOW:  # copying the rest each time would cost more than it frees
            self._held = self._held[before - self._start :]
            self._start = before


def _break_before(text: str, place: int) -> int:
    """The beginning of a paragraph, line or word at or shortly before `place`, where two windows soon agree."""
    for mark in ("\n\n", "\n", " "):
        found = text.rfind(mark, max(place - OVERLAP, 1), place)
        if found > 0:
            return found
    return max(place, 1)


def _part(encoding: Encoding, start: int, stop: int, first: int, end: int) -> EncodedPart:
    """Tokens start:stop of a window that starts at character `first`."""
    numbers = range(start, stop, PLACES_APART)
    begins = [first + int((encoding.token_to_chars(number) or (0, 0))[0]) for number in numbers]
    places = np.array([[number - start for number in numbers], begins], np.int64)
    return EncodedPart(np.asarray(encoding.ids[start:stop], np.uint32), places, end)


@dataclass(frozen=True, slots=True)
class _Seam:
    """The token numbers at which the right window takes over, and the character, from the left one's beginning."""

    left: int
    right: int
    character: int


def _seam(left: Encoding, right: Encoding, ahead: int, skip: int) -> _Seam | None:
    """Find where two windows are joined, or None; the right one begins `ahead` characters after the left one."""
    first, tail = _tail(left, ahead)
    head = _head(right, len(tail) + AGREED, ahead)
    numbers = {span: number for number, span in reversed(list(enumerate(head)))}
    for index in range(len(tail) - AGREED + 1):
        at = numbers.get(tail[index])
        if at is not None and tail[index : index + AGREED] == head[at : at + AGREED]:
            middle = index + AGREED // 2
            # A window is not joined before its own join with the previous window.
            return _Seam(first + middle, at + AGREED // 2, tail[middle][1]) if first + middle >= skip else None
    return None


Span = tuple[int, int, int]  # id, first character, end


def _tail(encoding: Encoding, start: int) -> tuple[int, list[Span]]:
    """The number of the first token that begins at character `start` or later, and the tokens from it on."""
    ids = encoding.ids
    found: list[Span] = []
    for number in range(len(ids) - 1, -1, -1):
        begin, end = encoding.token_to_chars(number) or (0, 0)
        if begin < start:
            break
        found.append((ids[number], begin, end))
    return len(ids) - len(found), found[::-1]


def _head(encoding: Encoding, count: int, shift: int) -> list[Span]:
    """The first tokens, at most `count`, with their offsets moved by `shift`."""
    found = []
    for number, token in enumerate(encoding.ids[:count]):
        begin, end = encoding.token_to_chars(number) or (0, 0)
        found.append((token, begin + shift, end + shift))
    return found
