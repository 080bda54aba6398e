"""The chat as a Textual application: one engine, one chat screen, colours, signals."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import TextArea

from longmamba_mlx.errors import LongMambaError
from longmamba_mlx.tui.chat import ChatScreen
from longmamba_mlx.tui.commands.table import COMMANDS, Command
from longmamba_mlx.tui.history.store import ConversationStore
from longmamba_mlx.tui.themes import THEMES
from longmamba_mlx.tui.worker.engine import Engine
from longmamba_mlx.tui.worker.protocol import SessionFactory

TWICE_SECONDS = 1.0


class ChatApp(App[int]):
    """Runs the chat; its result is the exit code."""

    TITLE = "longmamba-mlx"
    CSS_PATH = [  # noqa: RUF012 - Textual's own declaration
        "widgets/title_bar.tcss",
        "widgets/memory_map.tcss",
        "widgets/text_pane.tcss",
        "widgets/note.tcss",
        "widgets/exchange.tcss",
        "widgets/passage.tcss",
        "widgets/reading_bar.tcss",
        "widgets/suggestions.tcss",
        "widgets/hints.tcss",
        "widgets/prompt.tcss",
        "widgets/status_line.tcss",
        "chat.tcss",
    ]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (60, "-normal"), (110, "-roomy")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (16, "-high")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "quit", "Quit", show=False, priority=True),
        Binding("ctrl+c", "interrupt", "Stop", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", "Suspend", show=False, priority=True),
    ]

    def __init__(
        self,
        factory: SessionFactory,
        paths: Sequence[str],
        *,
        store: ConversationStore | None = None,
        model: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.engine = Engine(factory)
        self.store = store
        self._choose_colours()
        self.chat = ChatScreen(self.engine, store, model, clock)
        self._paths = tuple(paths)
        self._clock = clock
        self._interrupted = float("-inf")

    def _choose_colours(self) -> None:
        """Choose before the style sheets are read: other colours would make Textual read them again."""
        for theme in THEMES:
            self.register_theme(theme)
        self.set_reactive(App.theme, self._kept_theme() or THEMES[0].name)
        self._colours = self.get_css_variables()
        self.stylesheet.set_variables(self._colours)

    def refresh_css(self, animate: bool = True) -> None:
        """Read the style sheets again only when the colours have changed."""
        if (colours := self.get_css_variables()) != self._colours:
            self._colours = colours
            super().refresh_css(animate)

    def on_mount(self) -> None:
        self.push_screen(self.chat)
        # The first frame must not wait for the model: the engine's thread starts after it.
        self.call_after_refresh(self._begin)
        self._quit_on_signals()

    async def _begin(self) -> None:
        gc.enable()
        await self.chat.greet(self._paths)

    def _kept_theme(self) -> str | None:
        """The theme of the last run."""
        with contextlib.suppress(LongMambaError):
            name = self.store.setting("theme") if self.store else None
            return name if name in self.available_themes else None
        return None

    def watch_theme(self, name: str) -> None:
        if self.store is not None and self.is_running and self.chat.is_mounted:
            with contextlib.suppress(LongMambaError):
                self.store.set("theme", name)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The menu: the chat's own commands, then the themes."""
        for command in COMMANDS:
            yield SystemCommand(command.usage, command.summary, lambda chosen=command: self._choose(chosen))
        yield SystemCommand("Theme", "Change the colours", self.action_change_theme)

    async def _choose(self, command: Command) -> None:
        if command.needs_argument:
            self.chat.prompt.put(f"/{command.name} ")
        else:
            self.chat.command(f"/{command.name}")

    async def action_interrupt(self) -> None:
        """Ctrl+C: copy the selection, else stop; pressed twice within a second: leave."""
        if selected := self._take_selection():
            await self.chat.copy(selected)
            return
        now = self._clock()
        if now - self._interrupted <= TWICE_SECONDS:
            self.chat.controller.leave()
            return
        self._interrupted = now
        if self.chat.controller.stop():
            self.chat.status.flash("Stopping… Ctrl+C again leaves")
        else:
            self.chat.status.flash("Ctrl+C again leaves")

    def _take_selection(self) -> str:
        """The selected text; it is not selected afterwards, so that the next Ctrl+C means stop."""
        focused = self.focused
        if isinstance(focused, TextArea) and (text := focused.selected_text):
            focused.move_cursor(focused.cursor_location)
            return text
        text = self.screen.get_selected_text() or ""
        if text:
            self.screen.clear_selection()
        return text

    async def action_quit(self) -> None:
        """Ctrl+Q."""
        self.chat.controller.leave()

    def _quit_on_signals(self) -> None:
        if self.is_headless:
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            leave = partial(self.chat.controller.leave, interrupted=number == signal.SIGINT)
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, leave)
