"""The harder exam: facts of many kinds about a few names, asked for in several wordings, among similar sentences."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from longmamba_mlx.errors import UsageError
from longmamba_mlx.evaluation.attributes import ATTRIBUTES, DISTRACTIONS, UNSEEN, VALUES, Attribute
from longmamba_mlx.evaluation.measure import Exam, PlannedDocument, Question
from longmamba_mlx.evaluation.names import draw_names
from longmamba_mlx.evaluation.needles import Filler, strew
from longmamba_mlx.evaluation.niah import exact
from longmamba_mlx.evaluation.samples import Cell

MOST_OF_ONE_NAME = 3
STRANGER, UNSAID = "name not there", "not said of the name"
CHOICES = {"trained": ATTRIBUTES, "unseen": UNSEEN}
_FACT_TOKENS = 24
_TOKENS_A_DISTRACTION = 256  # one sentence of similar look in so many tokens


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact about a name in a document."""

    name: str
    attribute: Attribute
    value: str
    sentence: str


def attribute_documents(
    filler: Filler,
    lengths: Sequence[int],
    *,
    samples: int,
    facts: int = 4,
    attributes: str = "trained",
    split: str = "test",
    absent: bool = False,
    seed: int = 0,
) -> Iterator[PlannedDocument[Exam]]:
    """`samples` questions a length, rounded up to whole documents of `facts` facts, each asked for once.

    `attributes` names one of CHOICES. `absent` asks in turn for an attribute of a name that is not there, and for one
    that is not said of a name that is.
    """
    for length in lengths:
        cell = Cell("attributes-absent" if absent else "attributes", length)
        for number in range(math.ceil(samples / facts)):
            make = partial(
                attribute_exam, filler, length, facts, f"{seed} {length} {number}", attributes=CHOICES[attributes],
                split=split, absent=absent,
            )  # fmt: skip
            yield PlannedDocument(cell, number, facts, make)


def attribute_exam(
    filler: Filler, tokens: int, facts: int, seed: str, *, attributes: Sequence[Attribute] = ATTRIBUTES,
    split: str = "test", absent: bool = False,
) -> Exam:  # fmt: skip
    """About `tokens` tokens of filler with `facts` facts and sentences of similar look between its sentences.

    Raises UsageError when the facts alone would fill the document.
    """
    if tokens < 2 * _FACT_TOKENS * facts:
        raise UsageError(f"{facts} facts do not fit into {tokens} tokens.", hint="Fewer facts, or a longer document.")
    rng = random.Random(seed)  # noqa: S311
    names = draw_names(rng, split, 2 * facts, filler.common)
    said, strangers = _facts(names[:facts], attributes, rng, split, filler.common), names[facts:]
    others = [
        _distraction(rng, split, filler.common, [fact.name for fact in said] + strangers)
        for _ in range(tokens // _TOKENS_A_DISTRACTION)
    ]
    sentences = filler.stretch(tokens - _FACT_TOKENS * (facts + len(others)), rng)
    strewn = [(rng.randrange(len(sentences) + 1), text) for text in [*(fact.sentence for fact in said), *others]]
    if absent:
        questions = tuple(_absent(index, fact, said, strangers, attributes, rng) for index, fact in enumerate(said))
    else:
        questions = tuple(_present(fact, rng) for fact in said)
    return Exam(strew(sentences, strewn), questions, exact, absent=absent)


def _facts(
    names: Sequence[str], attributes: Sequence[Attribute], rng: random.Random, split: str, common: list[str]
) -> list[Fact]:
    """As many facts as names; a name has up to MOST_OF_ONE_NAME of different attributes, so some names have none."""
    found: list[Fact] = []
    for name in names:
        several = rng.randint(1, MOST_OF_ONE_NAME)
        for attribute in rng.sample(attributes, min(several, len(names) - len(found))):
            value = VALUES[attribute.kind](rng, split, common)
            sentence = rng.choice(attribute.facts).format(name=name, value=value)
            found.append(Fact(name, attribute, value, sentence))
    return found


def _distraction(rng: random.Random, split: str, common: list[str], names: Sequence[str]) -> str:
    kind = rng.choice(tuple(DISTRACTIONS))
    text = rng.choice(DISTRACTIONS[kind])
    return text.format(name=rng.choice(names), value=VALUES[kind](rng, split, common))


def _present(fact: Fact, rng: random.Random) -> Question:
    text = rng.choice(fact.attribute.questions).format(name=fact.name)
    return Question(text, (fact.value,), formed=True, part=fact.attribute.name)


def _absent(
    index: int, fact: Fact, said: Sequence[Fact], strangers: Sequence[str], attributes: Sequence[Attribute],
    rng: random.Random,
) -> Question:  # fmt: skip
    """A stranger's attribute, or one that the document says of others, where it can be, but not of this name."""
    if index % 2 == 0:
        name, attribute, part = strangers[index], fact.attribute, STRANGER
    else:
        own = {other.attribute.name for other in said if other.name == fact.name}
        of_others = [other.attribute for other in said if other.attribute.name not in own]
        attribute = rng.choice(of_others or [item for item in attributes if item.name not in own])
        name, part = fact.name, UNSAID
    return Question(rng.choice(attribute.questions).format(name=name), (), formed=True, part=part)
