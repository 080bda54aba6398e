"""PLaMo-2's tokenizer, read from its tokenizer.jsonl as data: a line for each token, [piece, score, type, ...].

A text becomes the pieces with the highest sum of scores, in ten-thousandths; among equal sums the one whose first piece
is longest, then whose second is, and so on. A character that is in none of them costs 1,000 and becomes the bytes of
its UTF-8.

The `tokenizers` library has this as its Unigram model, but for two things. Among equal sums it takes the longest last
piece: so text and pieces are handed to it backwards. And a character without a piece costs it 10 more than the worst
piece: so there is one piece of that cost less 10, made of a character that no other piece has. It is never chosen
unless that character is in the text, and stands there for the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from longmamba_mlx.errors import ModelError
from longmamba_mlx.tokenization.load_limits import check_trie

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_UNKNOWN = -1e7  # ten-thousandths
_PENALTY = 10.0  # the library's, for a character without a piece
_MOST = 999.0  # of a score: the scores of all pieces lie above _UNKNOWN
_MOST_TOKENS = 1 << 22
_MARK = re.compile(r"<\|plamo:[^|]{1,64}\|>")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_AGAIN = "Is it the file of PLaMo-2's publisher, and whole?"


@dataclass(frozen=True, slots=True)
class Encoded:
    """Ids, and the first character and the one after the last for each; as the library's own `Encoding`."""

    ids: list[int]
    spans: list[tuple[int, int]]

    def token_to_chars(self, token_index: int, /) -> tuple[int, int] | None:
        """The first character of a token and the one after its last."""
        return self.spans[token_index]


class Pieces:
    """A vocabulary of pieces with scores. `special`: further pieces that mark turns and ends, beside those the file
    itself calls CONTROL or UNKNOWN."""

    def __init__(self, data: bytes, special: Iterable[str] = ()) -> None:
        """Raises ModelError for anything but such a file."""
        self._names: list[str] = []
        self._scores: dict[str, tuple[float, int]] = {}
        self._special: dict[str, int] = {}
        self._bytes: dict[int, int] = {}
        named = frozenset(special)
        for number, (piece, score, kind) in enumerate(_rows(data)):
            self._names.append(piece)
            if kind == "BYTE":
                self._bytes[int(piece[3:5], 16)] = number
            elif kind in ("CONTROL", "UNKNOWN") or piece in named or _MARK.fullmatch(piece):
                self._special[piece] = number
            elif piece:
                self._scores[piece] = (float(round(score * 1e4)), number)
        if len(self._bytes) != 256:
            raise ModelError("tokenizer.jsonl does not have a token for every byte.", hint=_AGAIN)

    def backend(self) -> Backend:
        """The vocabulary as a tokenizer that decodes. Raises ValueError where it would take too much memory."""
        from tokenizers import AddedToken, Tokenizer, decoders, models

        check_trie(self._names)
        check_trie(piece[::-1] for piece in self._scores)  # of `_matcher`
        found = Tokenizer(models.Unigram([(name, 0.0) for name in self._names], unk_id=None, byte_fallback=True))
        found.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
        found.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in self._special])
        return found

    def encode(self, text: str, *, special: bool) -> Encoded:
        """Encode a text; special tokens are recognised in it only if `special`."""
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        at = 0
        for mark in self._marks.finditer(text) if special and self._special else ():
            self._append(text, at, mark.start(), ids, spans)
            ids.append(self._special[mark.group()])
            spans.append(mark.span())
            at = mark.end()
        self._append(text, at, len(text), ids, spans)
        return Encoded(ids, spans)

    def _append(self, text: str, start: int, end: int, ids: list[int], spans: list[tuple[int, int]]) -> None:
        """The tokens of text[start:end]."""
        if start == end:
            return
        matcher, numbers = self._matcher
        # A batch of one releases the GIL.
        backwards = matcher.encode_batch([text[start:end][::-1]], add_special_tokens=False)[0]
        for found, (first, last) in zip(reversed(backwards.ids), reversed(backwards.offsets), strict=True):
            begin, stop = end - last, end - first
            if found:
                ids.append(numbers[found])
                spans.append((begin, stop))
                continue
            for place in range(begin, stop):
                encoded = text[place].encode()
                ids.extend(self._bytes[byte] for byte in encoded)
                spans.extend([(place, place + 1)] * len(encoded))

    @cached_property
    def _marks(self) -> re.Pattern[str]:
        """The special tokens, longer ones first."""
        return re.compile("|".join(map(re.escape, sorted(self._special, key=len, reverse=True))))

    @cached_property
    def _matcher(self) -> tuple[Backend, Sequence[int]]:
        """The library's model of the pieces backwards, whose token 0 is text without a piece; our ids of its tokens."""
        from tokenizers import Tokenizer, models

        used = set().union(*self._scores)
        strange = next(chr(code) for code in range(0x10FFFF, 0, -1) if chr(code) not in used)
        vocabulary = [(strange, _UNKNOWN + _PENALTY)]
        vocabulary += [(piece[::-1], score) for piece, (score, _) in self._scores.items()]
        numbers = [0, *(number for _, number in self._scores.values())]
        return Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False)), numbers


def _rows(data: bytes) -> Iterator[tuple[str, float, str]]:
    """Piece, score and type of each line. Raises ModelError."""
    for number, line in enumerate(data.splitlines(), 1):
        if number > _MOST_TOKENS:
            raise ModelError(f"tokenizer.jsonl has more than {_MOST_TOKENS:,} lines.", hint=_AGAIN)
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, list) or len(row) < 2 or not isinstance(row[0], str) or not _is_score(row[1]):
            raise ModelError(f"tokenizer.jsonl: line {number} is not a piece and its score.", hint=_AGAIN)
        piece, kind = row[0], row[2] if len(row) > 2 else "NORMAL"
        if kind == "BYTE" and not _BYTE.fullmatch(piece):
            raise ModelError(f"tokenizer.jsonl: line {number} is not a byte.", hint=_AGAIN)
        yield piece, float(row[1]), str(kind)


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_MOST <= value <= _MOST
