"""How RULER's synthetic documents are built (arXiv 2404.06654; prompts and constants of its `synthetic` suite)."""

from __future__ import annotations

import math
import random
import re
import string
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

from longmamba_mlx.evaluation.metrics import match_all, match_any
from longmamba_mlx.evaluation.words import EVERY, KEYS

_NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
_DEPTHS = tuple(round(100 * place / 39) for place in range(40))
_COMMON = 10  # words to be found among the others
_EXAMPLE_NOISE = 10  # noise lines in the worked example of variable tracking: about 500 tokens
SHORT = 4096  # tokens below which lists of words have smaller counts and sizes smaller steps
ESSAY_STEP = 500  # words


@dataclass(frozen=True, slots=True)
class Draft:
    """One document with its question, the correct answers, and the start of the answer."""

    document: str
    question: str
    answers: tuple[str, ...]
    begun: str


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Passages, and questions about them: (question, answers, its passages, others of the same article)."""

    passages: tuple[str, ...]
    items: tuple[tuple[str, tuple[str, ...], tuple[int, ...], tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Materials:
    """What documents are made of: running text in words, its commonest words for long lists, question sets by task."""

    running: tuple[str, ...]
    common: tuple[str, ...] = ()
    questions: Mapping[str, QuestionSet] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample: its number, the wanted length in tokens, its random numbers."""

    number: int
    length: int
    rng: random.Random


Build = Callable[[Materials, int, Draw], Draft]
"""(materials, size, sample) -> Draft; the document grows with the size."""


@dataclass(frozen=True, slots=True)
class RulerTask:
    """`step`: by how much the size is lowered where a sample has become too long; `max_tokens` of its answer."""

    build: Build
    max_tokens: int
    step: int = 25
    score: Callable[[str, Sequence[str]], float] = match_all

    def step_at(self, length: int) -> int:
        """The step for samples of a length, which is also the smallest size: short ones have small steps."""
        return min(self.step, 5) if length < SHORT and self.step != ESSAY_STEP else self.step


def niah(
    materials: Materials,
    size: int,
    draw: Draw,
    *,
    haystack: str,
    key: str = "words",
    value: str = "numbers",
    keys: int = 1,
    values: int = 1,
    queries: int = 1,
) -> Draft:
    """`keys` keys with `values` values each in a haystack of noise, essays or other needles; `queries` of the keys are
    asked."""
    rng = draw.rng
    keys = max(keys, queries)
    pairs = [(_random(key, rng), [_random(value, rng) for _ in range(values)]) for _ in range(keys)]
    needles = [_needle(value, name, item) for name, items in pairs for item in items]
    rng.shuffle(needles)
    if haystack == "essay":
        context = _in_essay(materials.running, size, needles, rng)
    else:
        other = [_NOISE if haystack == "noise" else _needle(value, _random(key, rng), _random(value, rng))
                 for _ in range(max(size, len(needles)))]  # fmt: skip
        for place, needle in zip(
            sorted(rng.sample(range(len(other)), len(needles)), reverse=True), needles, strict=True
        ):
            other.insert(place, needle)
        context = "\n".join(other)
    asked = rng.sample(pairs, queries)
    names = [name for name, _ in asked]
    query = ", ".join(names[:-1]) + ", and " + names[-1] if len(names) > 1 else names[0]
    one = queries * values == 1
    kind, are, some = (value[:-1], "is", "A") if one else (value, "are", "Some")
    document = (
        f"{some} special magic {kind} {are} hidden within the following text. Make sure to memorize it. "
        f"I will quiz you about the {kind} afterwards.\n{context}"
    )
    question = (
        f"\nWhat {'is' if one else 'are all'} the special magic {kind} for {query} mentioned in the provided text?"
    )
    begun = f" The special magic {kind} for {query} mentioned in the provided text {are}"
    return Draft(document, question, tuple(item for _, items in asked for item in items), begun)


def _needle(kind: str, key: str, value: str) -> str:
    return f"One of the special magic {kind} for {key} is: {value}."


def _random(kind: str, rng: random.Random) -> str:
    if kind == "numbers":
        return str(rng.randint(10**6, 10**7 - 1))
    if kind == "words":
        return rng.choice(KEYS)
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _in_essay(running: Sequence[str], size: int, needles: Sequence[str], rng: random.Random) -> str:
    words = [running[place % len(running)] for place in range(size)]
    sentences = re.split(r"(?<=[.!?])\s+", " ".join(words))
    places = sorted(int(len(sentences) * depth / 100) for depth in rng.sample(_DEPTHS, len(needles)))
    parts: list[str] = []
    for start, stop, needle in zip([0, *places], [*places, len(sentences)], [*needles, ""], strict=True):
        parts += [*sentences[start:stop], needle]
    return " ".join(part for part in parts if part)


def variable_tracking(materials: Materials, size: int, draw: Draw, *, hops: int = 4) -> Draft:
    """One chain of assignments in noise: which variables have the first one's value? A worked example comes first."""
    example, shown = _chain(_EXAMPLE_NOISE, hops, 3, draw.rng)
    wanted, names = _chain(size, hops, 5, draw.rng)
    solved = f"{example.document}{example.question}{example.begun} {' '.join(shown)}\n\n"
    return Draft(solved + wanted.document, wanted.question, names, wanted.begun)


def _chain(noise: int, hops: int, letters: int, rng: random.Random) -> tuple[Draft, tuple[str, ...]]:
    names: dict[str, None] = {}
    while len(names) <= hops:
        names["".join(rng.choices(string.ascii_uppercase, k=letters))] = None
    ordered = tuple(names)
    value = str(rng.randrange(10_000, 99_999))
    links = [f"VAR {ordered[0]} = {value}"]
    links += [f"VAR {later} = VAR {earlier} " for earlier, later in pairwise(ordered)]
    lines = [_NOISE] * max(noise, len(links))
    for shift, place in enumerate(sorted(rng.sample(range(len(lines)), len(links)))):
        lines.insert(place + shift, links[shift])
    document = "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n" + "\n".join(
        lines
    ).replace(". \n", ".\n")
    question = f"\nQuestion: Find all variables that are assigned the value {value} in the text above."
    begun = (
        f" Answer: According to the chain(s) of variable assignment in the text above, {hops + 1} variables are "
        f"assigned the value {value}, they are: "
    )
    return Draft(document, question, ordered, begun), ordered


def common_words(materials: Materials, size: int, draw: Draw) -> Draft:
    """A numbered list in which ten words come thirty times and all others three times. A worked example comes first."""
    short = draw.length < SHORT
    example, shown = _word_list(materials, *((20, 3, 1) if short else (40, 10, 3)), draw.rng)
    listed, names = _word_list(materials, max(size, _COMMON), *((6, 1) if short else (30, 3)), draw.rng)
    solved = f"{example.document}{example.question}{example.begun} {_numbered(shown)}\n"
    return Draft(solved + listed.document, listed.question, names, listed.begun)


def _word_list(
    materials: Materials, words: int, often: int, seldom: int, rng: random.Random
) -> tuple[Draft, tuple[str, ...]]:
    source: Sequence[str] = EVERY
    if words > len(source):
        source = tuple(dict.fromkeys([*EVERY, *materials.common, *KEYS]))
    drawn = rng.sample(source, min(words, len(source)))
    common = tuple(drawn[:_COMMON])
    everything = list(common) * often + drawn[_COMMON:] * seldom
    rng.shuffle(everything)
    document = (
        "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that "
        f"appear most often.\n{_numbered(everything)}"
    )
    question = "\nQuestion: What are the 10 most common words in the above list?"
    begun = " Answer: The top 10 words that appear most often in the list are:"
    return Draft(document, question, common, begun), common


def _numbered(words: Sequence[str]) -> str:
    return " ".join(f"{place}. {word}" for place, word in enumerate(words, 1))


def frequent_words(materials: Materials, size: int, draw: Draw, *, alpha: int = 2) -> Draft:
    """Coded words whose k-th commonest comes in proportion to k^-alpha: the three commonest but for the dots."""
    rng = draw.rng
    codes: dict[str, None] = {}
    while len(codes) < max(4, draw.length // 50):
        codes["".join(rng.choices(string.ascii_lowercase, k=6))] = None
    ranked = sorted(codes)
    rng.shuffle(ranked)
    ranked[0] = "..."
    zeta = math.pi**2 / 6  # of alpha = 2
    text = [code for rank, code in enumerate(ranked, 1) for _ in range(int(size * rank**-alpha / zeta))]
    rng.shuffle(text)
    document = (
        "Read the following coded text and track the frequency of each coded word. Find the three most frequently "
        f"appeared coded words. {' '.join(text)}"
    )
    question = (
        "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three most frequently "
        "appeared words in the above coded text?"
    )
    begun = " Answer: According to the coded text above, the three most frequently appeared words are:"
    return Draft(document, question, tuple(ranked[1:4]), begun)


def question_answering(materials: Materials, size: int, draw: Draw, *, name: str) -> Draft:
    """A question with its passages among others, the others of the same article first."""
    source, rng = materials.questions[name], draw.rng
    question, answers, own, related = source.items[draw.number % len(source.items)]
    spare = size - len(own)
    if spare > len(related):
        used = {*own, *related}
        others = [place for place in range(len(source.passages)) if place not in used]
        chosen = [*own, *related, *rng.sample(others, min(spare - len(related), len(others)))]
    else:
        chosen = [*own, *rng.sample(related, max(0, spare))]
    rng.shuffle(chosen)
    passages = "\n\n".join(f"Document {place}:\n{source.passages[index]}" for place, index in enumerate(chosen, 1))
    order = (
        "Answer the question based on the given documents. Only give me the answer and do not output any other words."
    )
    document = f"{order}\n\nThe following are given documents.\n\n{passages}"
    return Draft(document, f"\n\n{order}\n\nQuestion: {question}", answers, " Answer:")


TASKS: Mapping[str, RulerTask] = {
    "niah_single_1": RulerTask(partial(niah, haystack="noise"), 128),
    "niah_single_2": RulerTask(partial(niah, haystack="essay"), 128, ESSAY_STEP),
    "niah_single_3": RulerTask(partial(niah, haystack="essay", value="uuids"), 128, ESSAY_STEP),
    "niah_multikey_1": RulerTask(partial(niah, haystack="essay", keys=4), 128, ESSAY_STEP),
    "niah_multikey_2": RulerTask(partial(niah, haystack="needle"), 128),
    "niah_multikey_3": RulerTask(partial(niah, haystack="needle", key="uuids", value="uuids"), 128),
    "niah_multivalue": RulerTask(partial(niah, haystack="essay", values=4), 128, ESSAY_STEP),
    "niah_multiquery": RulerTask(partial(niah, haystack="essay", queries=4), 128, ESSAY_STEP),
    "vt": RulerTask(variable_tracking, 30, 10),
    "cwe": RulerTask(common_words, 120, 10),
    "fwe": RulerTask(frequent_words, 50, 10),
    "qa_1": RulerTask(partial(question_answering, name="qa_1"), 32, 10, match_any),
    "qa_2": RulerTask(partial(question_answering, name="qa_2"), 32, 10, match_any),
}
