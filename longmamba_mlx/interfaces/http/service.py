"""Shared state of the endpoints: a model's documents, the thread that owns it, and the server's limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar, cast

from starlette.requests import Request

from longmamba_mlx.ground.steps import Stop
from longmamba_mlx.interfaces.catalogue import Remembered, find
from longmamba_mlx.interfaces.engine import Engine
from longmamba_mlx.interfaces.http.errors import ApiError
from longmamba_mlx.interfaces.library import Library

Item = TypeVar("Item")
_SEPARATOR = "@"
_END = object()


@dataclass(frozen=True)
class Service:
    """One model and its documents; at most `most_body` bytes of a request; answers of `max_tokens` by default."""

    library: Library
    engine: Engine
    version: str
    most_body: int = 64 << 20
    max_tokens: int = 256
    _loading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def load(self) -> None:
        """Load the model, once. Raises ModelError and its kinds, BusyError."""
        async with self._loading:
            if not self.library.loaded:
                async with aclosing(self.engine.run(lambda _: iter((bool(self.library.model()),)))) as events:
                    async for _ in events:
                        pass

    async def documents(self) -> tuple[Remembered, ...]:
        """The remembered documents whose reading is complete."""
        found = await asyncio.to_thread(self.library.documents)
        return tuple(document for document in found if not document.unfinished)

    async def meant(self, model: str) -> Remembered | None:
        """The document that a model's name ends with; None for the model alone. Raises ApiError for another model."""
        name = self.library.name
        if model == name:
            return None
        if not model.startswith(name + _SEPARATOR):
            raise ApiError(
                404, f"There is no model {model[:200]!r}; this server has {name!r}.", "model_not_found", "model"
            )
        return find(await self.documents(), model.removeprefix(name + _SEPARATOR))

    def model_id(self, document: Remembered) -> str:
        """The name of a model that answers from a document."""
        return f"{self.library.name}{_SEPARATOR}{document.name}"

    async def events(self, work: Callable[[Stop], Iterator[Item]], request: Request) -> AsyncGenerator[Item, None]:
        """Yield the events of work on the model's thread; when the client goes away, the work stops.

        Raises ClientGoneError then, and what `Engine.run` raises.
        """
        async with aclosing(self.engine.run(work)) as events:
            gone = asyncio.ensure_future(_disconnected(request))
            upcoming: asyncio.Future[object] | None = None
            try:
                while True:
                    upcoming = asyncio.ensure_future(_next(events))
                    await asyncio.wait((upcoming, gone), return_when=asyncio.FIRST_COMPLETED)
                    if not upcoming.done():
                        raise ClientGoneError
                    item = upcoming.result()
                    if item is _END:
                        return
                    yield cast("Item", item)
            finally:
                gone.cancel()
                if upcoming is not None and not upcoming.done():
                    upcoming.cancel()
                    await asyncio.wait((upcoming,))  # `events` cannot be closed while it runs


async def begun(events: AsyncGenerator[Item, None], early: tuple[type, ...] = ()) -> list[Item]:
    """The events up to the first one that is not `early`. What they raise has its own status: nothing is sent yet."""
    first = []
    try:
        async for event in events:
            first.append(event)
            if not isinstance(event, early):
                break
    except BaseException:  # a client that has left too: the work ends before this does
        await events.aclose()
        raise
    return first


class ClientGoneError(Exception):
    """The client has disconnected."""


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _next(events: AsyncGenerator[object, None]) -> object:
    return await anext(events, _END)
