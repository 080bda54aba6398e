"""A short excerpt of a passage around the words of the question."""

from __future__ import annotations

from longmamba_mlx.retrieval.words import folded, telling_words, words_in

_AROUND = 0.35  # of an excerpt's width stands before the first word found


def excerpt(text: str, question: str, width: int = 300) -> str:
    """At most about `width` characters of `text` on one line, from a little before the question's first telling word.

    What is cut off is marked with "…".
    """
    plain = " ".join(text.split())
    if len(plain) <= width:
        return plain
    first = first_place(plain, question)
    start = max(min(first - int(_AROUND * width), len(plain) - width), 0)
    if start:
        start = plain.rfind(" ", 0, start) + 1
    end = start + width
    if end < len(plain):
        end = max(plain.rfind(" ", start, end), start + width // 2)
    return f"{'… ' if start else ''}{plain[start:end]}{' …' if end < len(plain) else ''}"


def first_place(text: str, question: str) -> int:
    """Position of the first occurrence of the question's longest distinctive word in a text; 0 without one."""
    wanted, plain = telling_words(words_in(question)), folded(text)
    places = [(len(word), plain.find(folded(word))) for word in wanted]
    found = [(size, place) for size, place in places if place >= 0]
    return max(found)[1] if found else 0
