"""Commands that show and search the text."""

from __future__ import annotations

from longmamba_mlx.errors import UsageError
from longmamba_mlx.tui.document_panel import DocumentPanel
from longmamba_mlx.tui.view import ChatView


class TextCommands:
    """One method per command of the group. Raises UsageError."""

    def __init__(self, view: ChatView, panel: DocumentPanel) -> None:
        self._view, self._panel = view, panel

    def text(self) -> None:
        self._panel.toggle()

    def find(self, argument: str) -> None:
        self._panel.find(argument)

    def map(self) -> None:
        if not self._view.memory_map.display:
            raise UsageError("There is no map: nothing was filtered", hint="Short texts are kept whole.")
        self._view.memory_map.focus()
