"""Guess a text's legacy encoding: the one in which the text is most probable in one language.

Each candidate decodes the text, and every character beyond ASCII then costs bits: few for the common letters of one
language in their usual places, many for capitals within words, symbols between letters, and characters never used.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cache

from longmamba_mlx.documents import alphabets
from longmamba_mlx.documents.encodings import MULTI_BYTE, SINGLE_BYTE

_SAMPLE = 1 << 14  # bytes
_CONTEXT = 24  # bytes around the ones beyond ASCII
_MARKS = frozenset("“”‘’„«»–—…•·°£€§©®™½¼¾²³¹ªº¿¡×±\xa0\xad、。，．・「」『』（）！？：；《》　〈〉")
_BETWEEN_LETTERS = frozenset("’·–—\xad\xa0、。，．・「」『』（）！？：；《》　〈〉")  # marks that may stand there
_MARK, _LETTER, _SYMBOL, _IMPOSSIBLE = 5.0, 10.0, 11.0, 16.0  # bits
_CAPITAL, _MISPLACED = 2.0, 9.0
_KANA, _FREQUENT, _COMMON, _RARE = 5.5, 8.0, 12.0, 16.0
# Bits that a text must save to be in an encoding that few texts are in.
_HANDICAP = {
    "cp1252": 0.0, "cp1251": 1.0, "cp1250": 5.0, "iso8859_2": 6.0, "iso8859_15": 6.0, "cp1257": 7.0, "mac_roman": 8.0,
    "cp850": 12.0, "koi8_u": 4.0, "iso8859_5": 8.0, "cp866": 6.0, "mac_cyrillic": 4.0, "cp855": 14.0, "johab": 24.0,
}  # fmt: skip
_USUAL_HANDICAP = 4.0
_WESTERN, _FEW, _FEW_HANDICAP = "cp1252", 1 / 20, 18.0
_MOST_BITS = 7.5  # a byte: more, and it is a text in none of them
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]+")
_CHARACTER = re.compile("[^\x00-\x7f]")
_ESCAPED = ((b"\x1b$)C", "iso2022_kr"), (b"\x1b$B", "iso2022_jp"), (b"\x1b$@", "iso2022_jp"))


def guess(data: bytes) -> str | None:
    """Return the most probable codec, or None if no candidate fits."""
    sample = _sample(data)
    count = sum(map(len, _BEYOND_ASCII.findall(sample)))
    few = count <= _FEW * len(data if len(data) > len(sample) else sample)
    costs = {codec: _cost(codec, sample) for codec in (*SINGLE_BYTE, *MULTI_BYTE)}
    best = min(costs, key=lambda codec: costs[codec] + _handicap(codec, few=few))
    return best if few or costs[best] <= _MOST_BITS * count else None


def _handicap(codec: str, *, few: bool) -> float:
    """`few`: nearly all of the text is ASCII, as Western languages are."""
    return _HANDICAP.get(codec, _USUAL_HANDICAP) + (_FEW_HANDICAP if few and codec != _WESTERN else 0.0)


def escaped(data: bytes) -> str | None:
    """The codec of a text that encodes others in ASCII bytes after escape sequences (ISO-2022-JP and -KR)."""
    for sequence, codec in _ESCAPED:
        if sequence in data:
            try:
                data.decode(codec)
            except UnicodeDecodeError:
                return None
            return codec
    return None


def _sample(data: bytes) -> bytes:
    """Sample the bytes beyond ASCII with their context, enough to recognise an encoding."""
    if len(data) <= _SAMPLE:
        return data
    pieces: list[bytes] = []
    total = end = 0
    for match in _BEYOND_ASCII.finditer(data):
        start = max(match.start() - _CONTEXT, end)
        end = max(match.end() + _CONTEXT, start)
        while end < len(data) and data[end] > 127:  # never within a character of several bytes
            end += 1
        if start < match.start() or not pieces:
            while start < match.start() and data[start] > 127:
                start += 1
        pieces.append(data[start:end])
        total += end - start
        if total > _SAMPLE:
            break
    return b"".join(pieces)


def _cost(codec: str, sample: bytes) -> float:
    """Bits of the characters beyond ASCII."""
    text = sample.decode(codec, "replace")
    if codec in MULTI_BYTE:
        return sum(_ideograph_bits(codec, text, match.start()) for match in _CHARACTER.finditer(text))
    seen = Counter((match[0], _place(text, match.start())) for match in _CHARACTER.finditer(text))
    return min(_language_bits(letters, seen) for letters in alphabets.LANGUAGES[codec])


def _place(text: str, index: int) -> float:
    """Bits for a character's position: capitals start words, symbols separate them."""
    character = text[index]
    before, after = text[index - 1 : index], text[index + 1 : index + 2]
    if unicodedata.category(character)[0] in "LM":
        if character > "\u036f" and (_is_latin(before) or _is_latin(after)):
            return _MISPLACED
        if character.isupper():
            if before.islower():
                return _MISPLACED
            if before.isupper():
                return _MISPLACED / 2 if after.islower() else 0.0
            return _CAPITAL
        capitals = before.isupper() and text[index - 2 : index - 1].isupper()
        return _MISPLACED / 2 if capitals and character.islower() else 0.0
    return _MISPLACED if before.isalpha() and after.isalpha() and character not in _BETWEEN_LETTERS else 0.0


def _is_latin(character: str) -> bool:
    return character.isascii() and character.isalpha()


@cache
def _bits(letters: str) -> dict[str, float]:
    """Each letter's bits, by Zipf's law."""
    norm = sum(1 / (rank + 2) for rank in range(len(letters)))
    return {letter: math.log2((rank + 2) * norm) for rank, letter in enumerate(letters)}


def _language_bits(letters: str, seen: Iterable[tuple[str, float]] | Counter[tuple[str, float]]) -> float:
    bits = _bits(letters)
    total = 0.0
    for (character, place), count in Counter(seen).items():
        known = bits.get(character)
        known = bits.get(character.lower()) if known is None else known
        total += count * (place + (_other_bits(character) if known is None else known))
    return total


def _other_bits(character: str) -> float:
    if character in _MARKS:
        return _MARK
    if character == "\ufffd" or "\x80" <= character < "\xa0":
        return _IMPOSSIBLE
    return _LETTER if character.isalpha() else _SYMBOL


@cache
def _frequent(codec: str) -> frozenset[str]:
    return frozenset(
        {"cp932": alphabets.SIMPLIFIED + alphabets.TRADITIONAL, "euc_jp": alphabets.SIMPLIFIED + alphabets.TRADITIONAL,
         "gb18030": alphabets.SIMPLIFIED, "big5hkscs": alphabets.TRADITIONAL}.get(codec, alphabets.HANGUL)
    )  # fmt: skip


@cache
def _is_common(codec: str, character: str) -> bool:
    """Whether an ideograph is of the first level of its standard, which holds those that people use."""
    data = character.encode(codec, "ignore")
    lead = data[0] if len(data) == 2 else 0
    first, last = _FIRST_LEVEL[codec]
    return first <= lead <= last and (codec in ("cp932", "big5hkscs", "johab") or data[1] >= 0xA1)


_FIRST_LEVEL = {"cp932": (0x88, 0x98), "euc_jp": (0xB0, 0xCF), "gb18030": (0xB0, 0xD7), "big5hkscs": (0xA4, 0xC6),
                "cp949": (0xB0, 0xC8), "johab": (0x88, 0xD3)}  # fmt: skip


def _ideograph_bits(codec: str, text: str, index: int) -> float:
    character = text[index]
    before, after = text[index - 1 : index], text[index + 1 : index + 2]
    among = _MISPLACED / 2 * (_is_latin(before) + _is_latin(after))
    if character == "\ufffd":
        return 2 * _IMPOSSIBLE
    if character in _MARKS or "\uff00" < character <= "\uff5e":
        return 7.0 + (0.0 if character in _BETWEEN_LETTERS else among)
    if character in alphabets.KANA and codec in ("cp932", "euc_jp"):
        return _KANA + among
    if character in _frequent(codec):
        return _FREQUENT + among
    return (_COMMON if _is_common(codec, character) else _RARE) + among
