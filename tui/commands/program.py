"""Commands on the program itself."""

from __future__ import annotations

from longmamba_mlx.tui.controller import ChatController
from longmamba_mlx.tui.view import ChatView


class ProgramCommands:
    """One method per command of the group. Raises UsageError."""

    def __init__(self, view: ChatView, controller: ChatController) -> None:
        self._view, self._controller = view, controller

    def themes(self, argument: str) -> None:
        self._view.use_theme(argument)

    def help(self) -> None:
        self._view.show_help()

    def quit(self) -> None:
        self._controller.leave()
