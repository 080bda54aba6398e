"""Where there is no answer: a demonstration model's limits, what a text search finds, and what comes later."""

from __future__ import annotations

import pytest

from longmamba_mlx.documents import Document
from longmamba_mlx.errors import UsageError
from longmamba_mlx.session.api import Model, ReadDocument

CHAPTERS = [
    "Captain Harlan kept the light on Gull Rock for thirty years and wrote a letter every Sunday.",
    "The inspector, Miss Ferrars, came in a gale. She counted the lamps and found one too few.",
    "The access code of Zorvath is 48213. Nobody at the harbour knew what it opened.",
]


@pytest.fixture(scope="module")
def book(demo: Model) -> ReadDocument:
    text = "\n\n".join(f"Chapter {number}\n\n{body}" for number, body in enumerate(CHAPTERS, 1))
    return demo.read(Document("light", text))


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("Who is Captain Harlan?", "Captain Harlan kept"),
        ("Who is miss ferrars", "Miss Ferrars, came"),
        ("What happens in chapter 2?", "Miss Ferrars, came"),
        ("What does Miss Ferrars count in chapter 2?", "counted the lamps"),
        ("Which code opens the harbour?", "Nobody at the harbour"),
    ],
)
def test_an_ordinary_question_is_not_asked_but_searched(book: ReadDocument, question: str, wanted: str) -> None:
    answer = book.ask(question)
    assert (answer.text, answer.found, answer.reason, answer.tokens) == ("", False, "demo", 0)
    assert any(wanted in passage.text for passage in answer.passages)
    assert answer.question == question


def test_a_question_without_a_word_of_the_document_shows_nothing(book: ReadDocument) -> None:
    assert book.ask("Summarise everything?").passages == ()


@pytest.mark.parametrize(
    "question",
    [
        "What is the access code of Zorvath?",
        "what is the ACCESS code of Zorvath",
        "What  is the access code of Zorvath ??",
    ],
)
def test_a_known_question_is_asked_in_any_spelling(book: ReadDocument, question: str) -> None:
    answer = book.ask(question)
    assert (answer.text, answer.found, answer.reason) == ("48213", True, "")


def test_not_found_shows_the_nearest_passages(book: ReadDocument) -> None:
    answer = book.ask("What is the access code of Harlan?")
    assert (answer.found, answer.reason) == (False, "not_found")
    assert any("Harlan" in passage.text for passage in answer.passages)


def test_what_comes_later_is_not_known_yet(book: ReadDocument) -> None:
    question = "What is the access code of Zorvath?"
    early = book.ask(question, as_of="chapter 2")
    assert (early.found, early.reason) == (False, "not_yet")
    assert not any("48213" in passage.text for passage in early.passages), "nothing after the place is shown"
    assert book.ask("What is the access code of Quillon?", as_of="chapter 2").reason == "not_found"
    assert book.ask(question, as_of="chapter 3").found


def test_an_empty_question_is_still_an_error(book: ReadDocument) -> None:
    with pytest.raises(UsageError):
        book.ask("  ")


def test_a_passage_read_again_is_about_the_asked_name(book: ReadDocument) -> None:
    index = book.index()
    assert index is not None
    assert index.to_reread("What is the access code of Nobody Else?", 3) == ()
    (passage,) = index.to_reread("What is the access code of Zorvath?", 3)
    assert "48213" in passage.text
    answer = book.ask("What is the access code of Vexley?", reread=2)
    assert not answer.found


def test_a_demonstration_model_knows_nothing_of_a_name_that_the_text_has_not(book: ReadDocument) -> None:
    for name in ("Belwick", "Zorwath", "Zor Vathan", "Harbourton"):
        assert not book.ask(f"What is the access code of {name}?").found
        assert not book.ask(f"What is the access code of {name}?", reread=2).found
