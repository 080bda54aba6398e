"""Commands that open documents and choose the model."""

from __future__ import annotations

import os

from longmamba_mlx.errors import UsageError
from longmamba_mlx.filtering import registry
from longmamba_mlx.ground.sizes import format_size
from longmamba_mlx.session.no_answer import real_model
from longmamba_mlx.tui.commands.arguments import split_paths
from longmamba_mlx.tui.controller import ChatController
from longmamba_mlx.tui.document_panel import DocumentPanel
from longmamba_mlx.tui.view import ChatView
from longmamba_mlx.tui.worker.jobs import Forget, Open, Switch, UseModel


class DocumentCommands:
    """One method per command of the group. Raises UsageError."""

    def __init__(self, view: ChatView, controller: ChatController, panel: DocumentPanel) -> None:
        self._view, self._controller, self._panel = view, controller, panel

    def open(self, argument: str) -> None:
        paths = split_paths(argument) if argument else self._controller.queue.last_paths
        if not paths:
            raise UsageError("/open needs a file", hint="For example: /open book.txt")
        self.read(paths)

    def read(self, paths: tuple[str, ...]) -> None:
        """Queue a reading of these files; of a folder or a pattern, a long one needs the user's consent."""
        from longmamba_mlx.documents.gathering import is_pattern  # with glob, which the first frame does not need

        unknown = any(os.path.isdir(path) or is_pattern(path) for path in paths)
        self._controller.submit(Open(paths, asks=unknown))

    def add(self, argument: str) -> None:
        paths = self._controller.queue.coming_paths
        if not paths:
            raise UsageError("No document is open to add to", hint="/open FILE reads the first one")
        more = tuple(path for path in split_paths(argument) if path not in paths)
        if not more:
            raise UsageError("That is part of the open document already")
        self.read((*paths, *more))

    async def books(self, argument: str) -> None:
        books = self._panel.books
        if not argument:
            if not books:
                raise UsageError("No document is open", hint="/open FILE reads a document")
            for number, book in enumerate(books):
                mark = " · open" if number == self._panel.current else ""
                await self._view.log_view.note(f"{number + 1}  {book.title} · {book.tokens:,} tokens{mark}")
            return
        if not argument.isdecimal() or not 1 <= int(argument) <= len(books):
            raise UsageError(f"There is no book {argument}", hint="/books lists them.")
        index = int(argument) - 1
        self._controller.submit(Switch(index, self._controller.read.files_of(books[index].digest)))

    async def forget(self) -> None:
        book = self._panel.book
        if book is None:
            raise UsageError("No document is open")
        question = f"Delete the saved state of {book.title}? To ask about it later it has to be read again."
        if await self._view.confirm(question, "Delete"):
            self._controller.submit(Forget())

    async def model(self, argument: str) -> None:
        name = argument or await self._view.choose_model(self._controller.model)
        if name and await self._may_fetch(name):
            self._controller.submit(UseModel(name))

    async def get(self) -> None:
        """Take the model to start with on this machine, downloaded after a look at its size."""
        await self.model(real_model(quantise=False).repository)

    async def _may_fetch(self, name: str) -> bool:
        """Ask before a model is downloaded, with its size where it is known."""
        from longmamba_mlx.tui.screens.model_choices import download_size  # the first frame does not need the table

        size = download_size(name)
        if size is None:
            return True
        about = f"about {format_size(size)}" if size else "its size is shown when the download starts"
        return await self._view.confirm(f"Download {name} and convert it? ({about})", "Download", "Not now")

    async def filter(self, argument: str) -> None:
        if not argument:
            await self._view.log_view.note(f"Filters: {registry.help_text()}")
            return
        model = self._controller.model
        if not model:
            raise UsageError("No model is loaded yet", hint="/open FILE reads a document")
        self._controller.submit(UseModel(model, argument))
