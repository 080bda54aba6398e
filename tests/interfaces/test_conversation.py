"""Which text of a conversation is the document, and what is asked of it; where an answer is cut."""

from __future__ import annotations

import pytest

from longmamba_mlx.errors import UsageError
from longmamba_mlx.interfaces.conversation import LONG, Message, NoDocumentError, conversation
from longmamba_mlx.interfaces.http.stop_text import StopText

SHORT, ASKED = "Be kind.", "Who is it?"
BOOK = "It was night.\n\nAnna came in. " * (LONG // 20) + "\n\nShe left."
LINE = "Anna came in. " * 50 + "She left."


def talk(*messages: tuple[str, str]) -> list[Message]:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [Message(roles[role], text) for role, text in messages]


@pytest.mark.parametrize(
    ("messages", "document", "turns", "question"),
    [
        ([("u", f"{BOOK}\n\n{ASKED}")], BOOK, (), ASKED),
        ([("u", f"{BOOK}\n{ASKED}")], BOOK, (), ASKED),
        ([("u", f"{LINE} {ASKED}")], LINE, (), ASKED),
        ([("u", f"{BOOK}\n\nSum it up.")], BOOK, (), "Sum it up."),
        ([("u", f"{BOOK}\n\nQuestion: {ASKED}\nAnswer:")], BOOK, (), ASKED),
        ([("u", BOOK), ("u", ASKED)], BOOK, (), ASKED),
        ([("u", BOOK), ("a", "I have read it."), ("u", ASKED)], BOOK, (), ASKED),
        ([("s", BOOK), ("u", ASKED)], BOOK, (), ASKED),
        ([("s", SHORT), ("u", f"{BOOK}\n\n{ASKED}")], BOOK, (), ASKED),
        ([("s", SHORT), ("u", ASKED)], SHORT, (), ASKED),
        ([("u", f"{BOOK}\n\n{ASKED}"), ("a", "Anna."), ("u", "And?")], BOOK, ((ASKED, "Anna."),), "And?"),
        ([("s", BOOK), ("u", ASKED), ("a", "Anna."), ("u", "And?")], BOOK, ((ASKED, "Anna."),), "And?"),
    ],
)
def test_the_document_is_the_beginning(
    messages: list[tuple[str, str]], document: str, turns: tuple[tuple[str, str], ...], question: str
) -> None:
    assert conversation(talk(*messages), named=False) == (document, turns, question)


def test_with_a_named_document_every_message_is_a_question() -> None:
    messages = talk(("s", BOOK), ("u", f"{BOOK}\n\n{ASKED}"))
    assert conversation(messages, named=True) == ("", (), f"{BOOK}\n\n{ASKED}")


def test_what_is_no_conversation_about_a_document_is_refused() -> None:
    for messages in ([("u", ASKED)], [("u", ASKED), ("a", "Anna."), ("u", "And?")]):
        with pytest.raises(NoDocumentError):
            conversation(talk(*messages), named=False)
    for messages in ([], [("s", BOOK)], [("a", "x"), ("u", ASKED)], [("u", BOOK), ("a", "x")], [("u", " ")]):
        with pytest.raises(UsageError):
            conversation(talk(*messages), named=False)


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_an_answer_ends_before_the_first_stop_wherever_it_is_cut(size: int) -> None:
    def stopped(text: str, *stops: str) -> str:
        stop, told = StopText(stops), ""
        for start in range(0, len(text), size):
            told += stop.push(text[start : start + size])
            if stop.hit:
                return told
        return told + stop.rest()

    assert stopped("one two three", "two") == "one "
    assert stopped("one two three", "three", "wo t") == "one t"
    assert stopped("aab", "aaab") == "aab" and stopped("aaab", "aab") == "a"
    assert stopped("one", "x") == "one"
