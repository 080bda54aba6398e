"""POST /v1/chat/completions: answers from a document, whole or in pieces as server-sent events."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from longmamba_mlx.events import Answer, Answered, Counted, Event, Notice, Piece, ReadDone, ReadProgress
from longmamba_mlx.ground.steps import Stop
from longmamba_mlx.interfaces.answers import answer_table, explanation
from longmamba_mlx.interfaces.catalogue import Remembered
from longmamba_mlx.interfaces.http.chat_request import ChatRequest, chat_request
from longmamba_mlx.interfaces.http.errors import api_error
from longmamba_mlx.interfaces.http.fields import read_json, text
from longmamba_mlx.interfaces.http.service import Service, begun
from longmamba_mlx.interfaces.http.stop_text import StopText
from longmamba_mlx.interfaces.library import Asked, Library

_EARLY = (Counted, ReadDone, Asked, Notice)  # before these a request can still turn out to be wrong
_BETWEEN = 0.5  # seconds from one comment on the reading to the next


async def complete(request: Request) -> Response:
    """Answer the last question of a conversation about a document."""
    service: Service = request.app.state.service
    table = await read_json(request, service.most_body)
    model = text(table, "model")
    document = await service.meant(model)
    wanted = chat_request(table, named=document is not None, max_tokens=service.max_tokens)
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def work(should_stop: Stop) -> Iterator[Event | Asked]:
        yield from _answering(service.library, document, wanted, should_stop)

    if not wanted.stream:
        reply = _Reply(wanted)
        async with aclosing(service.events(work, request)) as events:
            async for event in events:
                reply.take(event)
                if reply.complete:
                    break
        return JSONResponse(reply.whole(head))
    events = service.events(work, request)
    first = await begun(events, _EARLY)
    stream = _stream(first, events, _Reply(wanted), head)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def _answering(
    library: Library, document: Remembered | None, wanted: ChatRequest, should_stop: Stop
) -> Iterator[Event | Asked]:
    if document is None:
        book = yield from library.open_text(wanted.document, should_stop)
    else:
        book = yield from library.open_remembered(document, should_stop)
    yield from library.ask(book, wanted.question, should_stop)


async def _stream(
    first: list[Event | Asked], events: AsyncGenerator[Event | Asked, None], reply: _Reply, head: dict[str, Any]
) -> AsyncIterator[str]:
    told = 0.0
    async with aclosing(events):
        yield _chunk(head, {"role": "assistant", "content": ""})
        try:
            async for event in _chained(first, events):
                if isinstance(event, ReadProgress) and time.monotonic() - told > _BETWEEN:
                    told = time.monotonic()
                    yield f": reading, {event.done} of {event.total} tokens\n\n"
                if words := reply.take(event):
                    yield _chunk(head, {"content": words})
                if reply.complete:
                    break
        except Exception as error:  # the status is sent already: the error is the last event
            yield f"data: {json.dumps(api_error(error).table())}\n\n"
            return
    yield _chunk(head, {}, reply)
    if reply.wanted.with_usage:
        yield _event({**head, "object": "chat.completion.chunk", "choices": [], "usage": reply.usage()})
    yield "data: [DONE]\n\n"


async def _chained(first: list[Event | Asked], rest: AsyncIterator[Event | Asked]) -> AsyncIterator[Event | Asked]:
    for event in first:
        yield event
    async for event in rest:
        yield event


def _chunk(head: dict[str, Any], delta: dict[str, str], reply: _Reply | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": None if reply is None else reply.finish_reason}
    more = {} if reply is None else reply.more()
    return _event({**head, "object": "chat.completion.chunk", "choices": [choice], **more})


def _event(table: dict[str, Any]) -> str:
    return f"data: {json.dumps(table, ensure_ascii=False, separators=(',', ':'))}\n\n"


class _Reply:
    """An answer as it comes: its words up to a stop sequence, and then why there is none."""

    def __init__(self, wanted: ChatRequest) -> None:
        self.wanted = wanted
        self._stop = StopText(wanted.stops)
        self._words: list[str] = []
        self._done: ReadDone | None = None
        self._asked = self._pieces = 0
        self._answer: Answer | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing more is to come."""
        return self._stop.hit or self._answer is not None

    @property
    def finish_reason(self) -> str:
        return "length" if self._answer is not None and self._answer.finish_reason == "length" else "stop"

    def take(self, event: Event | Asked) -> str:
        """The words that an event adds."""
        words = ""
        if isinstance(event, ReadDone):
            self._done = event
        elif isinstance(event, Asked):
            self._asked = event.tokens
        elif isinstance(event, Piece):
            self._pieces += 1
            words = self._stop.push(event.text)
        elif isinstance(event, Answered):
            self._answer = event.answer
            words = self._stop.rest()
            if reason := explanation(event.answer, self.wanted.question.as_of):
                words += ("\n\n" if event.answer.text else "") + reason
        if words:
            self._words.append(words)
        return words

    def usage(self) -> dict[str, Any]:
        """Tokens, as OpenAI counts them: what was read in an earlier run is cached."""
        done = self._done
        read = 0 if done is None else done.tokens
        cached = 0 if done is None else done.tokens if done.reopened else done.before
        written = self._pieces if self._answer is None else self._answer.tokens
        return {
            "prompt_tokens": read + self._asked,
            "completion_tokens": written,
            "total_tokens": read + self._asked + written,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def more(self) -> dict[str, Any]:
        """Fields beyond OpenAI's object: evidence, or the reason for no answer."""
        if self._answer is None or self._done is None:
            return {}
        return {"longmamba": answer_table(self._answer, self._done, self.wanted.question.as_of)}

    def whole(self, head: dict[str, Any]) -> dict[str, Any]:
        """The whole response."""
        message = {"role": "assistant", "content": "".join(self._words).strip()}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason, "logprobs": None}
        return {**head, "object": "chat.completion", "choices": [choice], "usage": self.usage(), **self.more()}
