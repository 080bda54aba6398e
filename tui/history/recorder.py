"""Saves the conversation on the screen, and loads earlier ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from longmamba_mlx.errors import LongMambaError
from longmamba_mlx.tui.history.records import Exchange
from longmamba_mlx.tui.history.store import Conversation, ConversationStore
from longmamba_mlx.tui.rendering import formatting

T = TypeVar("T")
_TITLE_WIDTH = 80


class ConversationRecorder:
    """One conversation at a time. A file that cannot be used is reported once; the conversation continues unsaved."""

    def __init__(self, store: ConversationStore | None, on_error: Callable[[str, str | None], Awaitable[None]]) -> None:
        self.store = store
        self._on_error = on_error
        self._conversation: int | None = None
        self._title = ""
        self._paths: tuple[str, ...] = ()
        self._kept: list[Exchange] = []
        self._told = False

    @property
    def title(self) -> str:
        """The title the user gave, or that of a resumed conversation; "" without one."""
        return self._title

    async def keep(self, exchange: Exchange, document: str, paths: Sequence[str], model: str) -> None:
        """Write a finished exchange to the file; the first one creates the conversation there."""
        if self.store is None:
            return
        store = self.store
        await self.follow(document, paths)
        if self._conversation is None:
            self._paths = tuple(paths)
            title = self._title or formatting.shorten(exchange.question, _TITLE_WIDTH)
            self._conversation = await self._try(lambda: store.begin(title, document, paths, model))
        number = self._conversation
        if number is not None:
            self._kept.append(exchange)
            await self._try(partial(store.put, number, len(self._kept) - 1, exchange))

    async def follow(self, document: str, paths: Sequence[str]) -> None:
        """Let files that were added to the conversation's document come back with it."""
        store, number, more = self.store, self._conversation, tuple(paths)
        added = len(more) > len(self._paths) and more[: len(self._paths)] == self._paths
        if store is not None and number is not None and added:
            self._paths = more
            await self._try(lambda: store.set_document(number, document, more))

    def begin(self) -> None:
        """Start another conversation."""
        self._conversation, self._title, self._paths, self._kept = None, "", (), []

    async def resume(self, conversation: Conversation) -> list[Exchange]:
        """Resume an earlier conversation; return its exchanges."""
        store = self.store
        exchanges = await self._try(lambda: store.load(conversation.id)) if store else None
        self._conversation, self._title, self._kept = conversation.id, conversation.title, list(exchanges or [])
        self._paths = conversation.paths
        return list(self._kept)

    async def rename(self, title: str) -> None:
        """Give the conversation a title, also before anything was saved."""
        self._title = title
        store, number = self.store, self._conversation
        if store is not None and number is not None:
            await self._try(lambda: store.rename(number, title))

    async def retitle(self, conversation: Conversation, title: str) -> None:
        """Give any conversation a title."""
        store = self.store
        if conversation.id == self._conversation:
            await self.rename(title)
        elif store is not None:
            await self._try(lambda: store.rename(conversation.id, title))

    async def delete(self, conversation: Conversation) -> None:
        """Delete a conversation; what is still asked in the deleted one is saved as a new one."""
        store = self.store
        if store is not None:
            await self._try(lambda: store.delete(conversation.id))
        if conversation.id == self._conversation:
            self.begin()

    async def conversations(self, search: str = "", limit: int = 200) -> list[Conversation]:
        """The newest conversations with these words in them."""
        store = self.store
        return await self._try(lambda: store.conversations(search, limit)) or [] if store else []

    async def latest_about(self, paths: Sequence[str]) -> Conversation | None:
        """The last conversation that began with exactly these files."""
        store = self.store
        return await self._try(lambda: store.latest_about(paths)) if store else None

    async def questions(self) -> list[str]:
        """The questions of all conversations, for the prompt's history."""
        store = self.store
        return await self._try(store.questions) or [] if store else []

    async def _try(self, work: Callable[[], T]) -> T | None:
        try:
            return await asyncio.to_thread(work)
        except LongMambaError as error:
            if not self._told:
                self._told = True
                await self._on_error(str(error), error.hint)
            return None
