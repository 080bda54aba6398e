"""A known question in any spelling becomes the model's own words, with the name as it is written."""

from __future__ import annotations

import random

import pytest

from longmamba_mlx.evaluation.attributes import ATTRIBUTES
from longmamba_mlx.evaluation.names import mixed
from longmamba_mlx.tokenization.prompt_format import PromptForm

CODE, LEASE = "What is the access code of {name}?", "When does the lease of {name} end?"
FORM = PromptForm(question="\nQuestion: {question}?\nAnswer:", known=(CODE, LEASE))


@pytest.mark.parametrize(
    "name",
    ["Zorvath", "B.", "Dr. A. B.", "J.R.", "Acme Inc.", "Brant & Sons, Ltd.", "Unit 7", "Unit 3.5", "St. John",
     'Tim "B."', '"Big" Tim', "the “Gull”", "O'Brien", "Who? Ltd", "Is it Real? or Not", "Yahoo! Answers", "end",
     "P.S. Vane"],
)  # fmt: skip
@pytest.mark.parametrize("shape", [CODE, LEASE])
def test_a_name_is_asked_for_as_it_is_written(name: str, shape: str) -> None:
    question = shape.replace("{name}", name)
    assert FORM.as_known(question) == question
    assert f" {name}" in FORM.ask(FORM.as_known(question) or "")
    assert FORM.as_known(f"  {question[0].lower()}{question[1:]} ") == question


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Zorvath", "Zorvath"), ("Zorvath.", "Zorvath"), ("Zorvath!", "Zorvath"), ("Zorvath?!", "Zorvath"),
        ("Zorvath!?", "Zorvath"), ("Zorvath ??", "Zorvath"), ("Zorvath ?.", "Zorvath"), ("Zorvath…?", "Zorvath…"),
        ("Zorvath...", "Zorvath"), ("Zorvath ...?", "Zorvath"), ("Unit 7.", "Unit 7"), ("Unit 3.5.", "Unit 3.5"),
        ("B.", "B."), ("B. ?", "B."), ("B.??", "B."), ("A.B.", "A.B."), ("Hale, Ph.D.", "Hale, Ph.D."),
        ("Acme Co.", "Acme Co."),
        ("Harbour Master Ames.", "Harbour Master Ames"), ("Harbour Master Ames.?", "Harbour Master Ames."),
    ],
)  # fmt: skip
def test_only_punctuation_that_ends_the_question_is_ignored(written: str, name: str) -> None:
    wanted = CODE.replace("{name}", name)
    assert FORM.as_known(f"what  is the ACCESS code of {written}") == wanted
    assert FORM.as_known(f'"What is the access code of {written}"') == wanted
    assert FORM.as_known(f"“What is the access code of {written}”") == wanted


@pytest.mark.parametrize(
    "question", ["", "?", '""', "What is the access code of", "What is the access code of ?", "Who is B.?", "“Who?”"]
)
def test_any_other_question_is_not_known(question: str) -> None:
    assert FORM.as_known(question) is None


def test_every_wording_of_the_exam_keeps_every_kind_of_name() -> None:
    rng = random.Random(3)
    shapes = [question for attribute in ATTRIBUTES for question in attribute.questions]
    form = PromptForm(known=tuple(shapes))
    for shape in shapes:
        question = shape.replace("{name}", f"{mixed(rng)} {mixed(rng)}")
        assert form.as_known(question) == question
        assert form.as_known(question.removesuffix("?").lower()) is not None


def test_a_very_long_question_is_matched_quickly() -> None:
    assert FORM.as_known("What is the access code of " + "?" * 200_000 + "x?" + "." * 200_000) is not None


def test_the_example_is_the_known_question_most_like_the_asked_one() -> None:
    assert FORM.example("When does my contract end?") == "When does the lease of NAME end?"
    assert FORM.example("Which code opens the access door?") == "What is the access code of NAME?"
    assert FORM.example("Summarise") == FORM.example("") == "What is the access code of NAME?"
