"""The harder exam: its facts are in the text, its questions have one right answer, its rows tell the kinds apart."""

from __future__ import annotations

import random
import re

import pytest

from longmamba_mlx.errors import UsageError
from longmamba_mlx.evaluation.attribute_exam import STRANGER, UNSAID, attribute_documents, attribute_exam
from longmamba_mlx.evaluation.attributes import ATTRIBUTES, DISTRACTIONS, UNSEEN, VALUES
from longmamba_mlx.evaluation.names import split_of
from longmamba_mlx.evaluation.needles import Filler
from longmamba_mlx.evaluation.report import rows
from longmamba_mlx.evaluation.samples import Cell, Sample
from longmamba_mlx.evaluation.words import ADJECTIVES, NOUNS
from longmamba_mlx.session.api import Model

FORMS = {
    "code": r"\d{5}",
    "phone": r"[2-9]\d{2}-\d{4}",
    "date": r"[12]?\d [A-Z][a-z]+( (18|19|20)\d\d)?",
    "amount": r"\d{1,2}(,\d{3})?( dollars| pounds)|\d{2,3}( dollars| pounds)",
    "person": r"\S+( \S+)?",
    "place": r"\S+( \S+)?",
}


@pytest.fixture(scope="module")
def filler(demo: Model, story: str) -> Filler:
    return Filler([story], lambda text: len(demo.tokenizer.encode(text)))


def said_of(name: str, text: str) -> dict[str, set[str]]:
    """Attribute -> every value that the text gives for it, found from the wordings alone."""
    found: dict[str, set[str]] = {}
    for attribute in ATTRIBUTES:
        values: dict[int, str] = {}  # by place: "is called VALUE" is no value "called VALUE"
        for fact in attribute.facts:
            shape = re.escape(fact).replace(r"\{name\}", re.escape(name)).replace(r"\{value\}", "(.+?)")
            for match in re.finditer(rf"{shape}(?!\S)", text):
                values[match.start()] = min(values.get(match.start(), match[1]), match[1], key=len)
        if values:
            found[attribute.name] = set(values.values())
    return found


@pytest.mark.parametrize("seed", range(8))
def test_every_question_has_the_one_answer_that_the_text_gives(filler: Filler, seed: int) -> None:
    exam = attribute_exam(filler, 900, 6, str(seed))
    assert len(exam.questions) == 6
    for question in exam.questions:
        attribute = next(item for item in ATTRIBUTES if item.name == question.part)
        names = [m[1] for q in attribute.questions
                 if (m := re.fullmatch(re.escape(q).replace(r"\{name\}", "(.+)"), question.text))]  # fmt: skip
        assert len(names) == 1
        assert said_of(names[0], exam.document)[attribute.name] == set(question.answers)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_asked_of_absent_facts_is_nowhere_in_the_text(filler: Filler, seed: int) -> None:
    exam = attribute_exam(filler, 900, 6, str(seed), absent=True)
    assert exam.absent and [q.part for q in exam.questions] == [STRANGER, UNSAID] * 3
    for question in exam.questions:
        asked = [(item, m[1]) for item in ATTRIBUTES for q in item.questions
                 if (m := re.fullmatch(re.escape(q).replace(r"\{name\}", "(.+)"), question.text))]  # fmt: skip
        (attribute, name), said = asked[0], said_of(asked[0][1], exam.document)
        assert attribute.name not in said
        assert bool(said) == (question.part == UNSAID), name


def test_documents_have_two_facts_of_one_name_similar_sentences_and_the_wanted_length(
    demo: Model, filler: Filler
) -> None:
    texts = [attribute_exam(filler, 1500, 6, str(seed)) for seed in range(6)]
    starts = [text.split("{")[0] for kind in DISTRACTIONS.values() for text in kind if not text.startswith("{")]
    assert any(start in exam.document for exam in texts for start in starts)
    assert any(len({q.text.split()[-2] for q in exam.questions}) < 6 for exam in texts)
    lengths = [len(demo.tokenizer.encode(exam.document)) for exam in texts]
    assert all(abs(length - 1500) < 150 for length in lengths), lengths


@pytest.mark.parametrize("kind", VALUES)
def test_values_have_their_form_and_words_of_their_split(kind: str) -> None:
    rng = random.Random(3)
    for split in ("train", "dev", "test"):
        values = {VALUES[kind](rng, split, [*ADJECTIVES, *NOUNS]) for _ in range(60)}
        assert len(values) > 40
        for value in values:
            assert re.fullmatch(FORMS[kind], value), value
            if kind in ("person", "place"):
                assert any(split_of(word) == split for word in value.split()), value


def test_wordings_are_told_apart() -> None:
    """No question of one attribute is one of another, and every wording holds what is put into it."""
    every = (*ATTRIBUTES, *UNSEEN)
    questions = [question for attribute in every for question in attribute.questions]
    assert len(set(questions)) == len(questions)
    assert len({attribute.name for attribute in every}) == len(every)
    assert {attribute.kind for attribute in UNSEEN} == {attribute.kind for attribute in ATTRIBUTES} == set(VALUES)
    for attribute in every:
        assert attribute.kind in VALUES and attribute.questions and all("{name}" in q for q in attribute.questions)
        assert all(fact.endswith("{value}.") and " {name} " in fact for fact in attribute.facts)


def test_documents_are_reproducible_and_refused_where_facts_do_not_fit(filler: Filler) -> None:
    one, again = (list(attribute_documents(filler, [600], samples=7, facts=6, seed=2)) for _ in range(2))
    assert len(one) == 2 and [d.make() for d in one] == [d.make() for d in again]
    assert one[0].make() != one[1].make()
    unseen = next(iter(attribute_documents(filler, [600], samples=6, attributes="unseen"))).make()
    assert {q.part for q in unseen.questions} <= {item.name for item in UNSEEN}
    with pytest.raises(UsageError):
        attribute_exam(filler, 200, 6, "0")


def test_rows_of_parts_follow_the_row_of_all() -> None:
    cell = Cell("attributes", 512)
    samples = [
        Sample(cell, name, document, number, score, part=part)
        for name, gain in (("off", 0.0), ("longmamba", 1.0))
        for document in range(3)
        for number, (part, score) in enumerate((("rent", 1.0), ("debt", gain)))
    ]
    found = {(row.part, row.filter): row for row in rows(samples)}
    assert list(found) == [(part, name) for part in ("", "rent", "debt") for name in ("off", "longmamba")]
    assert [found[part, "off"].accuracy for part in ("", "rent", "debt")] == [0.5, 1.0, 0.0]
    gains = [found[part, "longmamba"].gain for part in ("", "rent", "debt")]
    assert [gain.difference for gain in gains if gain] == [0.5, 0.0, 1.0]
