"""Commands that ask questions in other ways than plainly."""

from __future__ import annotations

from longmamba_mlx.errors import UsageError
from longmamba_mlx.tui.commands import arguments
from longmamba_mlx.tui.controller import ChatController
from longmamba_mlx.tui.document_panel import DocumentPanel
from longmamba_mlx.tui.history.records import Exchange, How, Reply
from longmamba_mlx.tui.rendering import formatting
from longmamba_mlx.tui.view import ChatView
from longmamba_mlx.tui.worker import overview
from longmamba_mlx.tui.worker.jobs import Open, Reset


class AskingCommands:
    """One method per command of the group. Raises UsageError."""

    def __init__(self, view: ChatView, controller: ChatController, panel: DocumentPanel) -> None:
        self._view, self._controller, self._panel = view, controller, panel
        self._follow_up = False  # whether every question goes on from the conversation

    async def ask(self, question: str) -> None:
        """Ask an ordinary question, a follow-up in follow-up mode."""
        await self._ask(question, How(keep=self._follow_up))

    async def overview(self) -> None:
        """Ask the model for an overview; of a demonstration, which cannot give one, show the table of contents."""
        book = self._panel.book
        if book is not None and not book.asks_anything and book.text:
            text = overview.table_of_contents(book)
            reply = Reply("", text, "the table of contents: the demonstration model cannot give an overview")
            await self._controller.show(Exchange("Overview", How(overview=True), replies=[reply]))
        else:
            await self._ask(overview.QUESTION, How(overview=True))

    async def compare(self, argument: str) -> None:
        question = argument or next((record.question for record in reversed(self._view.log_view.records)), "")
        if not question:
            raise UsageError("/compare needs a question", hint="For example: /compare Who is Ishmael?")
        self._panel.hide()  # two answers side by side need its room
        await self._ask(question, How(compare=True))

    async def as_of(self, argument: str) -> None:
        place, question = arguments.split_place(argument)
        await self._ask(question, How(as_of=place))

    async def keep(self, argument: str) -> None:
        if argument:
            await self._ask(argument, How(keep=True))
        else:
            self._follow_up = not self._follow_up
            self._view.show_follow_up(self._follow_up)

    async def reread(self, argument: str) -> None:
        count, question = arguments.split_count(argument)
        await self._ask(question, How(reread=count, keep=self._follow_up))

    async def surest(self, argument: str) -> None:
        await self._ask(argument, How(surest=True))

    def reset(self) -> None:
        self._controller.submit(Reset())

    async def stop(self) -> None:
        """Stop what is running; when nothing is, take back the last queued question."""
        if self._controller.stop():
            return
        view = self._controller.queue.withdraw()
        if view is not None:
            if not self._view.prompt.text:
                self._view.prompt.put(view.exchange.question)
            await self._view.log_view.withdraw(view)

    async def _ask(self, question: str, how: How) -> None:
        if changed := self._controller.changed_files():
            files = formatting.shorten(", ".join(changed), 60)
            verb = "have" if len(changed) > 1 else "has"
            about = f"{files} {verb} changed on disk since the document was read. Read it again before answering?"
            if await self._view.confirm(about, "Read again", "Answer from what was read"):
                self._controller.submit(Open(self._controller.queue.paths))
            self._controller.accept_changes()
        await self._controller.ask(Exchange(question, how))
