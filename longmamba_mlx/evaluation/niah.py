"""Needles in a haystack and the pass key: exact match of facts hidden in a long text, by length, depth and filter."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Sequence

from longmamba_mlx.errors import UsageError
from longmamba_mlx.evaluation.measure import Exam, PlannedDocument, Question
from longmamba_mlx.evaluation.needles import Filler, Haystack, hide
from longmamba_mlx.evaluation.samples import Cell

_NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
_TASK = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. "
    "I will quiz you about the important information there.\n"
)


def niah_documents(
    filler: Filler,
    lengths: Sequence[int],
    *,
    samples: int,
    facts: int = 4,
    depths: Sequence[float] = (),
    split: str = "test",
    absent: bool = False,
    seed: int = 0,
) -> Iterator[PlannedDocument[Exam]]:
    """`samples` questions a cell.

    Without depths every document hides `facts` facts anywhere and all are asked (samples are rounded up to whole
    documents). With depths (0 to 1) a document hides one fact at that share of the text and `facts` - 1 anywhere, and
    the one is asked. `absent` asks for names that are not there: right is an answer that says so.
    """
    for length in lengths:
        for depth in depths or (None,):
            cell = Cell("niah-absent" if absent else "niah", length, depth)
            asked = facts if depth is None else 1
            for number in range(math.ceil(samples / asked)):
                stack = _stack(filler, length, facts, depth, split, f"{seed} {length} {number}")
                yield PlannedDocument(cell, number, asked, _exam(stack, depth, absent))


def _stack(
    filler: Filler, length: int, facts: int, depth: float | None, split: str, seed: str
) -> Callable[[], Haystack]:
    return lambda: hide(filler, length, facts, random.Random(seed), split=split, depth=depth)  # noqa: S311


def _exam(stack: Callable[[], Haystack], depth: float | None, absent: bool) -> Callable[[], Exam]:
    def make() -> Exam:
        made = stack()
        needles = made.needles if depth is None else made.needles[made.asked : made.asked + 1]
        if absent:
            names = made.strangers[: len(needles)]
            questions = tuple(Question(f"What is the access code of {name}?", (), formed=True) for name in names)
        else:
            questions = tuple(Question(needle.question, (needle.code,), formed=True) for needle in needles)
        return Exam(made.text, questions, exact, absent=absent)

    return make


def exact(answer: str, right: Sequence[str]) -> float:
    """1 where the answer is one of the right ones, to the letter."""
    return float(answer in right)


def passkey_documents(
    count: Callable[[str], int], lengths: Sequence[int], *, samples: int, depths: Sequence[float] = (), seed: int = 0
) -> Iterator[PlannedDocument[Exam]]:
    """The pass key hidden in repeated noise, as Landmark Attention (arXiv 2305.16300) and DeciMamba ask for it.

    `count` returns a text's length in tokens; without depths the key is at a random place. A continuation is correct if
    its first number is the key.
    """
    for length in lengths:
        for depth in depths or (None,):
            for number in range(samples):
                rng = random.Random(f"{seed} {length} {number}")  # noqa: S311
                yield PlannedDocument(Cell("passkey", length, depth), number, 1, _passkey(count, length, depth, rng))


def _passkey(count: Callable[[str], int], length: int, depth: float | None, rng: random.Random) -> Callable[[], Exam]:
    def make() -> Exam:
        key = str(rng.randrange(10_000, 100_000))
        fact = f"The pass key is {key}. Remember it. {key} is the pass key. "
        noise = max(1, round((length - count(_TASK) - count(fact)) * 50 / count(_NOISE * 50)))
        before = round(noise * (rng.random() if depth is None else depth))
        text = f"{_TASK}{_NOISE * before}{fact}{_NOISE * (noise - before)}".rstrip()
        return Exam(
            text, (Question("\nWhat is the pass key?", (key,), begun=" The pass key is"),), first_number, max_tokens=12
        )

    return make


def first_number(answer: str, right: Sequence[str]) -> float:
    """1 where the first number in the answer is right."""
    found = re.search(r"\d+", answer)
    return float(found is not None and found.group() in right)


def parse_lengths(text: str, training_length: int) -> list[int]:
    """ "512,16x" -> tokens; 16x is 16 training lengths. Raises UsageError."""
    lengths = []
    for word in text.split(","):
        number, times = word.strip().removesuffix("x"), word.strip().endswith("x")
        if not number.isdigit() or not 0 < int(number) <= 10**8:
            raise UsageError(f"Invalid length {word!r}.", hint="For example: --lengths 512,2048,16x")
        lengths.append(int(number) * (training_length if times else 1))
    return lengths


def parse_depths(text: str) -> list[float]:
    """ "0,0.5,1" -> shares of the document; "11" -> as many from 0 to 1; "" -> none. Raises UsageError."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if len(words) == 1 and words[0].isdigit() and int(words[0]) > 1:
        steps = min(101, int(words[0]))
        return [index / (steps - 1) for index in range(steps)]
    try:
        depths = [float(word) for word in words]
    except ValueError:
        depths = [-1.0]
    if any(not 0 <= depth <= 1 for depth in depths):
        raise UsageError(f"{text!r} are no depths.", hint="Shares of the document: --depths 0,0.5,1, or --depths 11")
    return depths
