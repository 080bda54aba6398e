"""Keeps the talk on the screen in the file of talks, and brings earlier ones back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from longmamba_mlx.errors import LongMambaError
from longmamba_mlx.tui.history.records import Exchange
from longmamba_mlx.tui.history.store import Talk, TalkStore
from longmamba_mlx.tui.rendering import formatting

if TYPE_CHECKING:
    from longmamba_mlx.tui.widgets.chat_log import ChatLog

T = TypeVar("T")
_TITLE_WIDTH = 80


class Diary:
    """One talk at a time. A file that cannot be used costs the memory of the talk, never the talk."""

    def __init__(self, store: TalkStore | None, log: ChatLog) -> None:
        self.store = store
        self._log = log
        self._talk: int | None = None
        self._title = ""
        self._kept: list[Exchange] = []
        self._told = False

    async def keep(self, exchange: Exchange, document: str, paths: Sequence[str], model: str) -> None:
        """Put a finished exchange into the file; the first one of a talk begins it there."""
        if self.store is None:
            return
        store = self.store
        if self._talk is None:
            title = self._title or formatting.shorten(exchange.question, _TITLE_WIDTH)
            self._talk = await self._try(lambda: store.begin(title, document, paths, model))
        talk = self._talk
        if talk is not None:
            self._kept.append(exchange)
            await self._try(partial(store.put, talk, len(self._kept) - 1, exchange))

    def begin(self) -> None:
        """What comes now is another talk."""
        self._talk, self._title, self._kept = None, "", []

    async def resume(self, talk: Talk) -> list[Exchange]:
        """Go on with an earlier talk; its exchanges."""
        store = self.store
        exchanges = await self._try(lambda: store.load(talk.id)) if store else None
        self._talk, self._title, self._kept = talk.id, talk.title, list(exchanges or [])
        return list(self._kept)

    async def rename(self, title: str) -> None:
        """Give the talk a title, also before anything was kept."""
        self._title = title
        store, talk = self.store, self._talk
        if store is not None and talk is not None:
            await self._try(lambda: store.rename(talk, title))

    async def retitle(self, talk: Talk, title: str) -> None:
        """Give any talk a title."""
        store = self.store
        if talk.id == self._talk:
            await self.rename(title)
        elif store is not None:
            await self._try(lambda: store.rename(talk.id, title))

    async def delete(self, talk: Talk) -> None:
        """Delete a talk; of the one that is held now, what is still said is kept as a new one."""
        store = self.store
        if store is not None:
            await self._try(lambda: store.delete(talk.id))
        if talk.id == self._talk:
            self.begin()

    async def talks(self, search: str = "", limit: int = 200) -> list[Talk]:
        """The newest talks with these words in them."""
        store = self.store
        return await self._try(lambda: store.talks(search, limit)) or [] if store else []

    async def latest_about(self, paths: Sequence[str]) -> Talk | None:
        """The talk that was last held about exactly these files."""
        store = self.store
        return await self._try(lambda: store.latest_about(paths)) if store else None

    async def questions(self) -> list[str]:
        """What was asked in all talks, for the prompt's history."""
        store = self.store
        return await self._try(store.questions) or [] if store else []

    async def _try(self, work: Callable[[], T]) -> T | None:
        try:
            return await asyncio.to_thread(work)
        except LongMambaError as error:
            if not self._told:
                self._told = True
                await self._log.error(str(error), error.hint)
            return None
