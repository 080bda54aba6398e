"""A conversation of another program: which text of its messages is the document, and what is asked of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from longmamba_mlx.errors import UsageError
from longmamba_mlx.interfaces.library import Turn

LONG = 1000  # characters from which a system message is a document and not an instruction
_SHORT = 500  # characters that a question has at most, where it stands at the end of a document
_LABELLED = re.compile(r"\n\s*question:[ \t]*(\S[^\n]*?)\s*(?:\n\s*answer:\s*)?\Z", re.IGNORECASE)
_LAST_SENTENCE = re.compile(r"[.!?。！？][\"'”’)\]]*\s+(?=[^.!?。！？]*[?？]\s*\Z)")


class NoDocumentError(UsageError):
    """A conversation without a document."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message; role: "system", "user" or "assistant"."""

    role: str
    text: str


def conversation(messages: Sequence[Message], *, named: bool) -> tuple[str, tuple[Turn, ...], str]:
    """The document, the turns before the question, and the question. With `named` there is no document in them.

    The document is a long system message, else the first user message, whose last part is the question, else a short
    system message. Other system messages are ignored: the model's prompt format has no place for them.
    Raises UsageError, NoDocumentError.
    """
    system = "\n\n".join(m.text for m in takewhile(lambda m: m.role == "system", messages)).strip()
    talk = [message for message in messages if message.role != "system"]
    if not talk or talk[-1].role != "user" or not talk[-1].text.strip():
        raise UsageError("The last message must be a question of the user.")
    if talk[0].role != "user":
        raise UsageError("The first message must be the user's, after those of the system.")
    document = ""
    if not named:
        document = system if len(system) >= LONG else ""
        if not document or len(talk[0].text) >= LONG:
            own, talk = _cut_document(talk)
            document = "\n\n".join(filter(None, (document, own))) or system
        if not document.strip():
            raise NoDocumentError(
                "There is no document.",
                hint="Start with its text, or name a remembered one: the model MODEL@DOCUMENT.",
            )
    turns, pending = [], []
    for message in talk:
        if message.role == "user":
            pending.append(message.text)
        elif pending:
            turns.append(("\n".join(pending), message.text))
            pending = []
    return document, tuple(turns), "\n".join(pending)


def _cut_document(talk: list[Message]) -> tuple[str, list[Message]]:
    """The document in the first user message, and the messages with its question in place of it."""
    first, rest = talk[0], talk[1:]
    if rest and rest[0].role == "user":
        return first.text.strip(), rest
    document, question = cut_question(first.text, alone=not rest)
    if not question:  # it was a document and nothing else, which the assistant has acknowledged
        return document, rest[1:] if rest[1:] else rest
    return document, [Message("user", question), *rest]


def cut_question(text: str, *, alone: bool) -> tuple[str, str]:
    """Split a document from the question at its end. Its last line is one if it ends with a question
    mark; its last paragraph where nothing else can be. Raises UsageError.

    alone: nothing else is asked.
    """
    text = text.strip()
    if labelled := _LABELLED.search(text):
        return text[: labelled.start()].rstrip(), labelled[1]
    is_question = text.endswith(("?", "？"))
    head, _, tail = text.rpartition("\n" if is_question or "\n\n" not in text else "\n\n")
    if len(tail) <= _SHORT and (alone or is_question):
        return head.rstrip(), tail.strip()
    if is_question and (sentence := _LAST_SENTENCE.search(text, len(head))):
        return text[: sentence.end()].rstrip(), text[sentence.end() :].strip()
    if alone:
        raise UsageError(
            "There is no question.", hint="Put it in a paragraph after the document, or in a message of its own."
        )
    return text, ""
