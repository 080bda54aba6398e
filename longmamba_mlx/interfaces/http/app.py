"""The server's routes, and how it starts and ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from longmamba_mlx.errors import LongMambaError
from longmamba_mlx.interfaces.http import documents
from longmamba_mlx.interfaces.http.completions import complete
from longmamba_mlx.interfaces.http.errors import ApiError, api_error
from longmamba_mlx.interfaces.http.guard import Guard
from longmamba_mlx.interfaces.http.service import ClientGoneError, Service

_LAST = 10.0  # seconds that a reading gets at the end to write its checkpoint

ROUTES = (
    Route("/health", documents.health),
    Route("/v1/models", documents.list_models),
    Route("/v1/models/{name:path}", documents.show_model),
    Route("/v1/chat/completions", complete, methods=["POST"]),
    Route("/v1/documents", documents.list_documents),
    Route("/v1/documents", documents.read_document, methods=["POST"]),
    Route("/v1/documents/{name:path}", documents.forget_document, methods=["DELETE"]),
)


def application(service: Service, *, key: str = "", origins: Sequence[str] = ()) -> Starlette:
    """The ASGI application. `key`: "" where none is needed; `origins`: web pages that may call it, "*" for all."""
    middleware = [Middleware(Guard, key=key, origins=tuple(origins))]
    if origins:
        cors = Middleware(CORSMiddleware, allow_origins=list(origins), allow_methods=["*"], allow_headers=["*"])
        middleware.insert(0, cors)
    handlers = {ApiError: _refuse, LongMambaError: _refuse, HTTPException: _refuse_route, ClientGoneError: _nobody,
                ClientDisconnect: _nobody, Exception: _refuse}  # fmt: skip
    app = Starlette(routes=ROUTES, middleware=middleware, exception_handlers=handlers)  # type: ignore[arg-type]
    app.state.service = service
    return app


async def run(app: Starlette, listening: socket.socket) -> None:
    """Serve on a socket until a signal; work in progress then stops, a reading writes its checkpoint.

    Raises ModelError and its kinds when the model cannot be loaded.
    """
    service: Service = app.state.service
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off",
                            timeout_graceful_shutdown=3, backlog=512)  # fmt: skip
    try:
        await service.load()
        await _Server(config, service).serve(sockets=[listening])
    finally:  # after an interrupted load too: MLX aborts a process that ends while its thread works
        service.engine.close()
        await asyncio.to_thread(service.engine.join, _LAST)


class _Server(uvicorn.Server):
    """Stops the model's work first: a response that waits for it would hold up the end."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.engine.close()
        await super().shutdown(sockets)


async def _refuse(_: Request, error: Exception) -> Response:
    return api_error(error).response()


async def _refuse_route(request: Request, error: HTTPException) -> Response:
    what = f"{request.method} {request.url.path[:200]}"
    if error.status_code == 405:
        return ApiError(405, f"{what} is not supported.", "method_not_allowed").response()
    return ApiError(error.status_code, f"There is no {what}.", "not_found").response()


async def _nobody(_: Request, __: Exception) -> Response:
    return Response(status_code=499)
