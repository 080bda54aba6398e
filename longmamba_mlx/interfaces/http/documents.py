"""/v1/models and /v1/documents: what is remembered; read a file; forget a document. And /health."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from longmamba_mlx.events import Counted, Event, Notice, ReadDone, ReadProgress
from longmamba_mlx.ground.steps import Stop
from longmamba_mlx.interfaces.answers import reading_table
from longmamba_mlx.interfaces.catalogue import Remembered
from longmamba_mlx.interfaces.http.errors import api_error
from longmamba_mlx.interfaces.http.fields import flag, read_json, text
from longmamba_mlx.interfaces.http.service import Service, begun


async def health(request: Request) -> Response:
    """Whether the server works, and how much waits."""
    service: Service = request.app.state.service
    return JSONResponse({
        "status": "ok",
        "version": service.version,
        "model": service.library.name,
        "busy": service.engine.busy,
        "waiting": service.engine.waiting,
    })  # fmt: skip


async def list_models(request: Request) -> Response:
    """The model, and for each remembered document one that answers from it."""
    service: Service = request.app.state.service
    models = [_model(service, None), *(_model(service, document) for document in await service.documents())]
    return JSONResponse({"object": "list", "data": models})


async def show_model(request: Request) -> Response:
    """One model."""
    service: Service = request.app.state.service
    return JSONResponse(_model(service, await service.meant(request.path_params["name"])))


async def list_documents(request: Request) -> Response:
    """All that is remembered, unfinished readings too."""
    service: Service = request.app.state.service
    documents = await asyncio.to_thread(service.library.documents)
    return JSONResponse({"object": "list", "data": [document.as_dict() for document in documents]})


async def read_document(request: Request) -> Response:
    """Read a file: {"path": ...}; with "stream": true its progress comes as server-sent events."""
    service: Service = request.app.state.service
    table = await read_json(request, service.most_body)
    path = text(table, "path")

    def work(should_stop: Stop) -> Iterator[Event]:
        yield from service.library.open_file(path, should_stop)

    if flag(table, "stream"):
        events = service.events(work, request)
        first = await begun(events)
        return StreamingResponse(_progress(first, events), media_type="text/event-stream")
    last: dict[str, Any] = {}
    async with aclosing(service.events(work, request)) as told:
        async for event in told:
            last = _told(event) or last
    return JSONResponse({"object": "document", **last})


async def forget_document(request: Request) -> Response:
    """Delete the saved state of a document; its file stays."""
    service: Service = request.app.state.service
    gone = await asyncio.to_thread(service.library.forget, request.path_params["name"])
    return JSONResponse({"object": "document.deleted", "id": gone.digest, "name": gone.name, "deleted": True})


def _model(service: Service, document: Remembered | None) -> dict[str, Any]:
    owner = {"object": "model", "owned_by": "longmamba-mlx"}
    if document is None:
        return {"id": service.library.name, "created": 0, **owner}
    return {"id": service.model_id(document), "created": int(document.used), **owner, "document": document.as_dict()}


async def _progress(first: list[Event], events: AsyncGenerator[Event, None]) -> AsyncIterator[str]:
    async with aclosing(events):
        for event in first:
            yield _line(_told(event))
        try:
            async for event in events:
                if told := _told(event):
                    yield _line(told)
        except Exception as error:  # the status is sent already: the error is the last event
            yield _line(api_error(error).table())
            return
    yield "data: [DONE]\n\n"


def _told(event: Event) -> dict[str, Any]:
    if isinstance(event, Counted):
        return {"done": 0, "total": event.tokens}
    if isinstance(event, ReadProgress):
        return {"done": event.done, "total": event.total, "seconds_left": event.seconds_left, "place": event.place}
    if isinstance(event, Notice):
        return {"note": event.text}
    return reading_table(event) if isinstance(event, ReadDone) else {}


def _line(table: dict[str, Any]) -> str:
    return f"data: {json.dumps(table, ensure_ascii=False)}\n\n"
