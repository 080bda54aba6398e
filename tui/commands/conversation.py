"""Commands on conversations: copy, export, resume, rename."""

from __future__ import annotations

from pathlib import Path

from longmamba_mlx.errors import UsageError
from longmamba_mlx.tui.controller import ChatController
from longmamba_mlx.tui.history import transcript
from longmamba_mlx.tui.history.recorder import ConversationRecorder
from longmamba_mlx.tui.history.records import Exchange, Stage
from longmamba_mlx.tui.history.store import Conversation
from longmamba_mlx.tui.rendering import formatting
from longmamba_mlx.tui.view import ChatView
from longmamba_mlx.tui.worker.jobs import Open


class ConversationCommands:
    """One method per command of the group. Raises UsageError and DiskError."""

    def __init__(self, view: ChatView, controller: ChatController, recorder: ConversationRecorder) -> None:
        self._view, self._controller, self._recorder = view, controller, recorder

    async def copy(self, argument: str) -> None:
        if argument == "all":
            await self._view.copy(transcript.to_markdown(self._title(), self._over()), "Conversation")
            return
        answer = next((record.text for record in reversed(self._view.log_view.records) if record.text), "")
        if not answer:
            raise UsageError("There is no answer to copy yet")
        await self._view.copy(answer.strip(), "Answer")

    def export(self, argument: str) -> None:
        path = Path(argument).expanduser()
        transcript.export(path, self._title(), self._over())
        self._view.status.flash(f"Saved {path}")

    def _over(self) -> list[Exchange]:
        over = [record for record in self._view.log_view.records if record.stage is not Stage.WAITING]
        if not over:
            raise UsageError("There is nothing to export yet")
        return over

    def _title(self) -> str:
        document = self._controller.queue.document
        return self._recorder.title or (document.title if document else "")

    async def sessions(self, argument: str) -> None:
        conversation = await self._view.choose_conversation(argument)
        if conversation is not None:
            await self.resume(conversation)

    async def resume_last(self) -> None:
        """Resume the last conversation about the open document, or the last of all."""
        queue = self._controller.queue
        paths = queue.paths or queue.last_paths
        if paths:
            found = await self._recorder.latest_about(paths)
        else:
            found = next(iter(await self._recorder.conversations(limit=1)), None)
        if found is not None:
            await self.resume(found)
        elif self._recorder.store is None:
            self._view.status.flash("Conversations are not kept: the chat was started with --no-save")
        else:
            about = f" about {formatting.files(paths)}" if paths else ""
            self._view.status.flash(f"No conversation{about} is kept · F4 lists all")

    async def resume(self, conversation: Conversation) -> None:
        """Show an earlier conversation, and open its document. Raises UsageError during an answer."""
        self._refuse_during_answer()
        await self._view.log_view.show_conversation(await self._recorder.resume(conversation))
        await self._view.log_view.note(f"Resuming “{conversation.title}”")
        queue, paths = self._controller.queue, conversation.paths
        if paths and paths != (queue.last_paths if queue.reading else queue.paths):
            if not all(Path(path).exists() for path in paths):
                piped = any(Path(path).name == "stdin" for path in paths)
                where = "It came through a pipe." if piped else f"It was {', '.join(paths)}"
                await self._view.log_view.error("Its document no longer exists", f"{where} /open FILE reads it.")
            else:
                self._controller.submit(Open(paths))

    async def rename(self, argument: str) -> None:
        await self._recorder.rename(argument)
        self._view.status.flash("Renamed")

    async def new(self) -> None:
        self._refuse_during_answer()
        self._recorder.begin()
        await self._view.log_view.clear()

    async def clear(self) -> None:
        await self._view.log_view.clear()

    def _refuse_during_answer(self) -> None:
        if self._controller.busy and not self._controller.queue.reading:
            raise UsageError("An answer is coming", hint="Esc stops it.")
