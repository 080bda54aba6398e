"""Documents with facts hidden in them: "The access code of NAME is 48213." among a text's own sentences."""

from __future__ import annotations

import random
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from longmamba_mlx.errors import DocumentError, UsageError
from longmamba_mlx.evaluation.names import common_words, draw_names

_SENTENCE = re.compile(r"\S.*?(?:[.!?][\"')]*(?=\s)|\Z)\s*", re.DOTALL)
_FACT = "The access code of "
_LEAST = 20  # sentences in a text that can hide anything


@dataclass(frozen=True, slots=True)
class Needle:
    """A fact and its position: `depth` is the share of the filler before it."""

    name: str
    code: str
    depth: float

    @property
    def sentence(self) -> str:
        return f"{_FACT}{self.name} is {self.code}."

    @property
    def question(self) -> str:
        return f"What is the access code of {self.name}?"


@dataclass(frozen=True, slots=True)
class Haystack:
    """A text with its needles in order, as many absent names, and the index of the needle at the requested depth."""

    text: str
    needles: tuple[Needle, ...]
    strangers: tuple[str, ...]
    asked: int = 0


class Filler:
    """A long text cut into sentences, from which stretches of any length are taken (round and round)."""

    def __init__(self, texts: Sequence[str], count: Callable[[str], int]) -> None:
        """`count` returns a text's length in tokens. Raises DocumentError for texts too short to hide anything in."""
        found = (match.group() for text in texts for match in _SENTENCE.finditer(text))
        self.sentences = [sentence for sentence in found if _FACT not in sentence]  # a text may hold facts of its own
        if len(self.sentences) < _LEAST:
            raise DocumentError(
                f"The filler text has only {len(self.sentences)} sentences.", hint="Give a longer text."
            )
        alone = [max(1, count(sentence)) for sentence in self.sentences]
        scale = count("".join(self.sentences)) / sum(alone)  # a sentence has fewer tokens in its text than alone
        self._ends = list(accumulate(tokens * scale for tokens in alone))
        self.common = common_words(list(texts), 3000)

    def stretch(self, tokens: int, rng: random.Random) -> list[str]:
        """Neighbouring sentences from a random place on, together about `tokens` long."""
        first = rng.randrange(len(self.sentences))
        before = self._ends[first - 1] if first else 0
        rounds, rest = divmod(before + tokens, self._ends[-1])
        last = bisect_left(self._ends, rest) + int(rounds) * len(self.sentences)
        return [self.sentences[i % len(self.sentences)] for i in range(first, max(last, first + 1) + 1)]


def hide(
    filler: Filler, tokens: int, facts: int, rng: random.Random, *, split: str = "test", depth: float | None = None
) -> Haystack:
    """About `tokens` tokens of filler with `facts` facts at random places between sentences.

    `depth`: one of them (`asked`) has this share of the filler before it. `split` says which names may be drawn; train
    is what the built-in models have seen. Raises UsageError when the facts alone would fill the document.
    """
    if tokens < 40 * facts:
        raise UsageError(f"{facts} facts do not fit into {tokens} tokens.", hint="Fewer facts, or a longer document.")
    names = draw_names(rng, split, 2 * facts, filler.common)
    sentences = filler.stretch(tokens - 20 * facts, rng)
    places = [rng.randrange(len(sentences) + 1) for _ in range(facts)]
    if depth is not None:
        places[0] = round(depth * len(sentences))
    wanted, places = places[0], sorted(places)
    needles = tuple(
        Needle(name, f"{rng.randrange(100_000):05d}", place / len(sentences))
        for name, place in zip(names, places, strict=False)
    )
    text = strew(sentences, [(place, needle.sentence) for needle, place in zip(needles, places, strict=True)])
    return Haystack(text, needles, tuple(names[facts:]), places.index(wanted))


def strew(sentences: Sequence[str], strewn: Sequence[tuple[int, str]]) -> str:
    """The sentences as one text, each of the strewn (place, sentence) before the sentence of that number."""
    parts: list[str] = []
    for index, sentence in enumerate([*sentences, ""]):
        parts.extend(f"{text} " for place, text in strewn if place == index)
        parts.append(sentence if not sentence or sentence[-1].isspace() else f"{sentence} ")
    return "".join(parts).strip()
