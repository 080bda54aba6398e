"""A chat completion's request, its fields checked."""

from __future__ import annotations

from dataclasses import dataclass

from longmamba_mlx.documents import sanitise
from longmamba_mlx.interfaces.conversation import Message, conversation
from longmamba_mlx.interfaces.http.fields import Table, flag, number, text, whole, wrong
from longmamba_mlx.interfaces.library import Question

_MOST_STOPS = 16
_MOST_TOKENS = 100_000
_SEEDS = 1 << 63


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A client's request. `document` is the text to ask about, "" if the model's name selects it."""

    document: str
    question: Question
    stops: tuple[str, ...]
    stream: bool
    with_usage: bool


def chat_request(table: Table, *, named: bool, max_tokens: int) -> ChatRequest:
    """Check a request. `named`: its model's name ends with a document. Raises ApiError, UsageError."""
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
        surest=flag(table, "surest"),
    )
    return ChatRequest(document, wanted, _stops(table), flag(table, "stream"), flag(options, "include_usage"))


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
