"""The cards of the built-in models list the questions that their configs have: run `python training/card.py FOLDER`."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

from longmamba_mlx.builtin import BUILT_IN, built_in_model, known_questions
from longmamba_mlx.evaluation.attributes import ATTRIBUTES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "training" / "card.py"))


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_card_is_that_of_its_model(name: str, card: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(built_in_model(name), folder)
    before = (folder / "README.md").read_text(encoding="utf-8")
    card["write"](folder)
    assert (folder / "README.md").read_text(encoding="utf-8") == before
    (folder / "README.md").write_text(before.replace("access code", "wine"), encoding="utf-8")
    card["write"](folder)
    assert "| code | access code," in (folder / "README.md").read_text(encoding="utf-8")


def test_every_question_of_the_exam_is_in_a_row(card: dict[str, Any]) -> None:
    known = [question for item in ATTRIBUTES for question in item.questions]
    made = card["forms"]([*known, "What is the door code of {name}?", "Is {name} tall?"])
    back = [
        question.replace("THING", thing)
        for (_, asked), things in made.items()
        for thing in things
        for question in asked
    ]
    assert sorted(back) == sorted([*known, "What is the door code of {name}?", "Is {name} tall?"])
    assert ("person", ("Who signed the THING of {name}?", "By whom was the THING of {name} signed?")) in made


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_known_question_has_a_name_in_it(name: str) -> None:
    assert all(question.count("{name}") == 1 for question in known_questions(name))
