"""Earlier talks: search, go on with one, rename, delete."""

from __future__ import annotations

from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from longmamba_mlx.tui.history.recorder import Diary
from longmamba_mlx.tui.history.store import Talk
from longmamba_mlx.tui.rendering import formatting, safe_text
from longmamba_mlx.tui.screens.confirm import ConfirmScreen
from longmamba_mlx.tui.screens.start_menu import talk_line


class SessionsScreen(ModalScreen["Talk | None"]):
    """The chosen talk, None when none was. What is typed narrows the list."""

    CSS_PATH = "sessions.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", show=False),
        Binding("down", "move(1)", "Down", show=False),
        Binding("up", "move(-1)", "Up", show=False),
        Binding("ctrl+n", "rename", "Rename", show=False, priority=True),
        Binding("ctrl+d", "delete", "Delete", show=False, priority=True),
    ]

    def __init__(self, diary: Diary, search: str) -> None:
        super().__init__()
        self._diary = diary
        self._search = search
        self._talks: list[Talk] = []
        self._renaming: Talk | None = None

    def compose(self) -> ComposeResult:
        with Vertical(id="sessions") as box:
            box.border_title = "Sessions"
            box.border_subtitle = "Enter go on · ^N rename · ^D delete · Esc close"
            yield Input(self._search, placeholder="Search in titles, questions and answers", compact=True)
            yield OptionList(markup=False)
            yield Static("", id="nothing", markup=False)

    async def on_mount(self) -> None:
        self.query_one(OptionList).can_focus = False
        await self._fill()

    @property
    def _list(self) -> OptionList:
        return self.query_one(OptionList)

    @property
    def _chosen(self) -> Talk | None:
        row = self._list.highlighted
        return self._talks[row] if row is not None and row < len(self._talks) else None

    async def _fill(self) -> None:
        row = self._list.highlighted or 0
        self._talks = await self._diary.talks(self._search)
        self._list.clear_options()
        self._list.add_options([Option(talk_line(talk)) for talk in self._talks])
        if self._talks:
            self._list.highlighted = min(row, len(self._talks) - 1)
        nothing = "Nothing was found" if self._search.strip() else "No talk was kept yet"
        self.query_one("#nothing", Static).update("" if self._talks else nothing)

    @on(Input.Changed)
    async def narrow(self, event: Input.Changed) -> None:
        """Show what fits the words."""
        if self._renaming is None:
            self._search = event.value
            await self._fill()

    @on(Input.Submitted)
    async def enter(self, event: Input.Submitted) -> None:
        """Go on with the chosen talk, or take the new title."""
        if self._renaming is None:
            if self._chosen is not None:
                self.dismiss(self._chosen)
            return
        if event.value.strip():
            await self._diary.retitle(self._renaming, event.value)
        await self._end_renaming()

    @on(OptionList.OptionSelected)
    def click(self, event: OptionList.OptionSelected) -> None:
        """A click goes on with a talk."""
        self.dismiss(self._talks[event.option_index])

    def action_move(self, step: int) -> None:
        if step > 0:
            self._list.action_cursor_down()
        else:
            self._list.action_cursor_up()

    async def action_close(self) -> None:
        if self._renaming is not None:
            await self._end_renaming()
        else:
            self.dismiss(None)

    def action_rename(self) -> None:
        """Let the title be typed where the search is typed."""
        if (talk := self._chosen) is not None:
            self._renaming = talk
            self.query_one("#sessions").border_title = "New title"
            self._put(safe_text.one_line(talk.title))

    async def _end_renaming(self) -> None:
        self.query_one("#sessions").border_title = "Sessions"
        self._put(self._search)
        self._renaming = None
        await self._fill()

    def _put(self, text: str) -> None:
        line = self.query_one(Input)
        with line.prevent(Input.Changed):
            line.value = text
        line.cursor_position = len(text)

    @work
    async def action_delete(self) -> None:
        """Delete the chosen talk when the user agrees."""
        talk = self._chosen
        if talk is None or self._renaming is not None:
            return
        question = (
            f"Delete “{talk.title}” with {formatting.many(talk.exchanges, 'question')}? It cannot be brought back."
        )
        if await self.app.push_screen_wait(ConfirmScreen(question, "Delete")):
            await self._diary.delete(talk)
            await self._fill()
