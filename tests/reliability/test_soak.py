"""R26: many questions about one document change neither its state nor the memory that is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from longmamba_mlx.documents import Document
from longmamba_mlx.session.api import Model, ReadDocument
from longmamba_mlx.system import resident_bytes

GROWTH = 20_000_000  # bytes
QUESTIONS = ("What is the access code of Zorvath?", "Who is Nobody?", "What is the access code of Elsewhere?")


def digest(book: ReadDocument) -> str:
    found = hashlib.sha256()
    for name, array in sorted(book.state.arrays().items()):
        found.update(name.encode() + bytes(memoryview(array)))
    return found.hexdigest()


def ask(model: Model, text: str, questions: int, record_property: Callable[[str, object], None]) -> None:
    book = model.read(Document("story", text))
    before, first = digest(book), [book.ask(question).text for question in QUESTIONS]
    for _ in range(3):  # caches fill
        for question in QUESTIONS:
            book.ask(question)
    resident = resident_bytes()
    for number in range(questions):
        assert book.ask(QUESTIONS[number % 3]).text == first[number % 3]
    growth = resident_bytes() - resident
    record_property("questions", questions)
    record_property("growth", f"{growth / 1e6:.1f} MB")
    assert first[0] == "48213" and digest(book) == before
    assert growth <= GROWTH


def test_questions_need_no_more_memory(demo: Model, story: str, record_property: Callable[[str, object], None]) -> None:
    ask(demo, story, 30, record_property)


@pytest.mark.slow
@pytest.mark.timeout(12 * 3600)
def test_two_hundred_questions(demo: Model, story: str, record_property: Callable[[str, object], None]) -> None:
    ask(demo, story, 200, record_property)
