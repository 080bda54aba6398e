"""A built-in model answers the questions that its card lists, and refuses them of a name that is not there."""

from __future__ import annotations

import random
import re

import pytest

from longmamba_mlx.builtin import BUILT_IN, known_questions, sample_document
from longmamba_mlx.documents import Document
from longmamba_mlx.evaluation.attributes import ATTRIBUTES, VALUES
from longmamba_mlx.evaluation.names import common_words, draw_names
from longmamba_mlx.session.api import load

NUMBER = re.compile(r"What is the (.+) of \{name\}\?")
LEAST_RIGHT = 0.8  # of forms of question, each asked once of a short text
TEXT = sample_document().read_text(encoding="utf-8")
SENTENCES = [sentence for sentence in re.findall(r"[A-Z][^.:!?]{40,160}\.", TEXT) if not re.search(r"\d", sentence)]
COMMON = common_words([TEXT], 500)


def fact_for(question: str, name: str, rng: random.Random) -> tuple[str, str]:
    """A sentence that answers a known question, and the answer."""
    item = next((item for item in ATTRIBUTES if question in item.questions), None)
    if item is not None:
        value = VALUES[item.kind](rng, "test", COMMON)
        return rng.choice(item.facts).format(name=name, value=value), value
    number = NUMBER.fullmatch(question)
    assert number, f"nothing is known that answers {question!r}"
    value = VALUES["code"](rng, "test", COMMON)
    return f"The {number[1]} of {name} is {value}.", value


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_model_answers_what_it_knows(name: str) -> None:
    model, rng, right, refused = load(name), random.Random(11), [], []
    for question in known_questions(name):
        asked, other = draw_names(rng, "test", 2, COMMON)
        sentence, value = fact_for(question, asked, rng)
        book = model.read(Document("short", " ".join([*rng.sample(SENTENCES, 2), sentence, *rng.sample(SENTENCES, 2)])))
        right.append(book.ask(question.replace("{name}", asked)).text == value)
        refused.append(not book.ask(question.replace("{name}", other)).found)
    assert sum(right) >= LEAST_RIGHT * len(right)
    assert sum(refused) >= LEAST_RIGHT * len(refused)
