"""A chat completion's request: which text of its messages is the document, and what is asked of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from longmamba_mlx.documents import sanitise
from longmamba_mlx.interfaces.http.errors import ApiError
from longmamba_mlx.interfaces.http.fields import Table, flag, number, text, whole, wrong
from longmamba_mlx.interfaces.library import Question, Turn

LONG = 1000  # characters from which a system message is a document and not an instruction
_SHORT = 500  # characters that a question has at most, where it stands at the end of a document
_MOST_STOPS = 16
_MOST_TOKENS = 100_000
_SEEDS = 1 << 63
_LABELLED = re.compile(r"\n\s*question:[ \t]*(\S[^\n]*?)\s*(?:\n\s*answer:\s*)?\Z", re.IGNORECASE)
_LAST_SENTENCE = re.compile(r"[.!?。！？][\"'”’)\]]*\s+(?=[^.!?。！？]*[?？]\s*\Z)")


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    text: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a client wants. `document` is the text to ask, "" where the model's name says which one."""

    document: str
    question: Question
    stops: tuple[str, ...]
    stream: bool
    with_usage: bool


def chat_request(table: Table, *, named: bool, max_tokens: int) -> ChatRequest:
    """Check a request. `named`: its model's name ends with a document. Raises ApiError."""
    document, earlier, question = conversation(_messages(table.get("messages")), named=named)
    if whole(table, "n", 1, 1, 128) != 1:
        raise wrong("n", "must be 1")
    options = table.get("stream_options") or {}
    if not isinstance(options, dict):
        raise wrong("stream_options", "must be an object")
    tokens = whole(table, "max_tokens", max_tokens, 1, _MOST_TOKENS)
    wanted = Question(
        question,
        earlier,
        as_of=text(table, "as_of", "") or None,
        reread=whole(table, "reread", 0, 0, 20),
        max_tokens=whole(table, "max_completion_tokens", tokens, 1, _MOST_TOKENS),
        temperature=number(table, "temperature", 0.0, 0.0, 2.0),
        seed=whole(table, "seed", 0, -_SEEDS, _SEEDS - 1) % _SEEDS,
    )
    return ChatRequest(document, wanted, _stops(table), flag(table, "stream"), flag(options, "include_usage"))


def conversation(messages: Sequence[Message], *, named: bool) -> tuple[str, tuple[Turn, ...], str]:
    """The document, the turns before the question, and the question. With `named` there is no document in them.

    The document is a long system message; else the first user message, of which a question at its end is asked; else
    a short system message. Otherwise system messages are not read: a model's prompt form has no place for them.
    """
    system = "\n\n".join(m.text for m in takewhile(lambda m: m.role == "system", messages)).strip()
    talk = [message for message in messages if message.role != "system"]
    if not talk or talk[-1].role != "user" or not talk[-1].text.strip():
        raise wrong("messages", "must end with a question of the user")
    if talk[0].role != "user":
        raise wrong("messages", "must begin with the user, after those of the system")
    document = ""
    if not named:
        document = system if len(system) >= LONG else ""
        if not document or len(talk[0].text) >= LONG:
            own, talk = _cut_document(talk)
            document = "\n\n".join(filter(None, (document, own))) or system
        if not document.strip():
            raise ApiError(
                400,
                "There is no document. Begin with its text, or name a remembered one: the model MODEL@DOCUMENT.",
                "no_document",
                "messages",
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
    """A document with a question at its end, as two. Its last paragraph is one if it looks so, or nothing else can be.

    alone: nothing else is asked.
    """
    text = text.strip()
    if labelled := _LABELLED.search(text):
        return text[: labelled.start()].rstrip(), labelled[1]
    head, _, tail = text.rpartition("\n\n" if "\n\n" in text else "\n")
    is_question = tail.rstrip().endswith(("?", "？"))
    if len(tail) <= _SHORT and (alone or is_question):
        return head.rstrip(), tail.strip()
    if is_question and (sentence := _LAST_SENTENCE.search(text, len(head))):
        return text[: sentence.end()].rstrip(), text[sentence.end() :].strip()
    if alone:
        raise wrong("messages", "must end with a question: a paragraph after the document, or a message of its own")
    return text, ""


def _messages(value: object) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise wrong("messages", "must be a list of messages")
    return [_message(item, f"messages[{index}]") for index, item in enumerate(value)]


def _message(item: object, name: str) -> Message:
    if not isinstance(item, dict):
        raise wrong(name, "must be an object")
    role = item.get("role")
    if role not in ("system", "developer", "user", "assistant"):
        raise wrong(f"{name}.role", "must be system, developer, user or assistant")
    content = item.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": "" if content is None else content}]
    texts = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise wrong(f"{name}.content", "must be a text")
        texts.append(part["text"])
    return Message("system" if role == "developer" else role, sanitise("\n".join(texts)))


def _stops(table: Table) -> tuple[str, ...]:
    value = table.get("stop")
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > _MOST_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise wrong("stop", f"must be a text, or a list of at most {_MOST_STOPS}")
    return tuple(stops)
