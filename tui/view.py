"""The chat screen as the controller, the document panel and the commands see it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from longmamba_mlx.tui.history.store import Conversation
from longmamba_mlx.tui.widgets.chat_log import ChatLog
from longmamba_mlx.tui.widgets.memory_map import MemoryMap
from longmamba_mlx.tui.widgets.prompt import Prompt
from longmamba_mlx.tui.widgets.reader import Reader
from longmamba_mlx.tui.widgets.reading_bar import ReadingBar
from longmamba_mlx.tui.widgets.status_line import StatusLine
from longmamba_mlx.tui.widgets.title_bar import TitleBar


class ChatView(Protocol):
    """Widgets to show things on, dialogs to ask the user with, and the program around them."""

    @property
    def log_view(self) -> ChatLog: ...
    @property
    def prompt(self) -> Prompt: ...
    @property
    def status(self) -> StatusLine: ...
    @property
    def bar(self) -> ReadingBar: ...
    @property
    def title_bar(self) -> TitleBar: ...
    @property
    def memory_map(self) -> MemoryMap: ...
    @property
    def reader(self) -> Reader: ...

    def has_class(self, *class_names: str) -> bool:
        """Whether all these style classes are set."""

    def set_class(self, add: bool, *class_names: str) -> object:
        """Set or remove style classes."""

    def run(self, work: Awaitable[None]) -> None:
        """Run what may wait for the user in the background; show why it failed."""

    def show_follow_up(self, on: bool) -> None:
        """Show whether every question is a follow-up."""

    def show_help(self) -> None:
        """Open the help."""

    def use_theme(self, name: str) -> None:
        """Change the colours; "" opens the list. Raises UsageError for an unknown theme."""

    async def confirm(self, question: str, yes: str, no: str = "Keep") -> bool:
        """Ask before something is lost or fetched; `no` labels the button that changes nothing."""

    async def choose_model(self, current: str) -> str | None:
        """Let the user choose a model; None when the dialog was closed."""

    async def choose_conversation(self, search: str) -> Conversation | None:
        """Let the user choose an earlier conversation; None when the dialog was closed. Raises LongMambaError."""

    async def copy(self, text: str, what: str) -> None:
        """Fill the clipboard and say how that went; `what` names the text ("Answer")."""

    def quit(self, exit_code: int) -> None:
        """End the program and give the terminal back."""
