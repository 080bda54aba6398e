"""Runs a command line of the chat."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

from longmamba_mlx.tui.commands import table
from longmamba_mlx.tui.commands.asking import AskingCommands
from longmamba_mlx.tui.commands.conversation import ConversationCommands
from longmamba_mlx.tui.commands.documents import DocumentCommands
from longmamba_mlx.tui.commands.program import ProgramCommands
from longmamba_mlx.tui.commands.text import TextCommands
from longmamba_mlx.tui.controller import ChatController
from longmamba_mlx.tui.document_panel import DocumentPanel
from longmamba_mlx.tui.history.recorder import ConversationRecorder
from longmamba_mlx.tui.view import ChatView


class Commands:
    """The groups of the table, each as the attribute of its name."""

    def __init__(
        self, view: ChatView, controller: ChatController, panel: DocumentPanel, recorder: ConversationRecorder
    ) -> None:
        self._panel = panel
        self.documents = DocumentCommands(view, controller, panel)
        self.asking = AskingCommands(view, controller, panel)
        self.text = TextCommands(view, panel)
        self.conversation = ConversationCommands(view, controller, recorder)
        self.program = ProgramCommands(view, controller)

    async def run(self, line: str) -> None:
        """Run "/name argument". Raises UsageError, and what the command raises."""
        command, argument = table.parse(line)
        if not command.shows_text:
            self._panel.give_way()
        method: Callable[..., Awaitable[None] | None] = getattr(getattr(self, command.group), command.method)
        pending = method(argument) if command.argument else method()
        if inspect.isawaitable(pending):
            await pending
