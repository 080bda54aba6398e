"""Headings that carry a number: "CHAPTER XII", "Book the Second", "3. Results"."""

from __future__ import annotations

import re

_UNITS = "one two three four five six seven eight nine ten eleven twelve".split()
_TEENS = "thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety hundred".split()
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()
_VALUES = {
    **{word: value for value, word in enumerate([*_UNITS, *_TEENS], 1)},
    **{word: value for value, word in enumerate(_ORDINALS, 1)},
    **{f"{word}th": value for value, word in enumerate(_TEENS, 13)},
    **{word: 10 * value for value, word in enumerate(_TENS, 2)},
    **{f"{word[:-1]}ieth": 10 * value for value, word in enumerate(_TENS[:-1], 2)},
}
_WORDS = "|".join(sorted([*_VALUES, "last"], key=len, reverse=True))
_ROMAN = re.compile(r"M{0,3}(CM|CD|D?C{0,4})(XC|XL|L?X{0,4})(IX|IV|V?I{0,4})", re.I)
_DIGITS = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}

NUMBER = rf"(?:[0-9]{{1,4}}|[IVXLCDM]{{1,8}}|(?:the\s+)?(?:{_WORDS})(?:[-\s](?:{_WORDS}))?)"
NUMBERED = "chapter|book|part|act|scene|canto|letter|adventure|section|volume|appendix|stave"
UNNUMBERED = "prologue|epilogue|preface|foreword|introduction|conclusion|afterword"
CONTAINERS = ("volume", "part", "book")  # a later one of these may begin its chapters at I again

_LEVELS = {"volume": 1, "part": 2, "book": 3, "section": 5, "scene": 5}
_HEADING = re.compile(rf"({NUMBERED})\s+({NUMBER})\b|((?:first|second|third)\s+)?({UNNUMBERED})\b", re.I)
_LEADING = re.compile(r"([0-9]{1,4})(?:[.):]?\s|\.?$)|([IVXLC]{1,7})(?:[.):]\s|\.?$)")


def to_number(word: str) -> int:
    """ "12", "XII", "twelve", "the Twelfth", "Twenty-One" -> their value; 0 for what is none ("last")."""
    word = word.strip().lower().removeprefix("the ").strip()
    if word.isdecimal():
        return int(word)
    values = [_VALUES.get(part, 0) for part in re.split(r"[-\s]+", word)]
    if any(values):
        return sum(values)
    if not _ROMAN.fullmatch(word):
        return 0
    digits = [_DIGITS[letter] for letter in word.upper()]
    return sum(-one if one < following else one for one, following in zip(digits, [*digits[1:], 0], strict=False))


def parse_heading(label: str) -> tuple[str, int]:
    """ "BOOK TWO: 1805" -> ("book", 2); "3. Results" -> ("", 3); "Preface" -> ("preface", 0); else ("", 0)."""
    if match := _HEADING.match(label):
        if match[1]:
            return match[1].lower(), to_number(match[2])
        return match[4].lower(), to_number(match[3] or "")
    if match := _LEADING.match(label):
        return "", to_number(match[1] or match[2])
    return "", 0


def level_of(label: str) -> int:
    """The usual depth of a heading of this kind: volumes 1, parts 2, books 3, chapters 4, scenes 5."""
    word, number = parse_heading(label)
    if word == "epilogue" and number:
        return _LEVELS["book"]  # War and Peace: "FIRST EPILOGUE", with chapters of its own
    return _LEVELS.get(word, 4)
