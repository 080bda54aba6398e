"""Earlier conversations: search, resume, rename, delete."""

from __future__ import annotations

from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from longmamba_mlx.tui.history.recorder import ConversationRecorder
from longmamba_mlx.tui.history.store import Conversation
from longmamba_mlx.tui.rendering import formatting, safe_text
from longmamba_mlx.tui.screens.confirm import ConfirmScreen
from longmamba_mlx.tui.widgets.start_menu import conversation_line


class ConversationsScreen(ModalScreen["Conversation | None"]):
    """Returns the chosen conversation, None when closed. Typing narrows the list."""

    CSS_PATH = "conversations.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", show=False),
        Binding("down", "move(1)", "Down", show=False),
        Binding("up", "move(-1)", "Up", show=False),
        Binding("ctrl+n", "rename", "Rename", show=False, priority=True),
        Binding("ctrl+d", "delete", "Delete", show=False, priority=True),
    ]

    def __init__(self, recorder: ConversationRecorder, search: str) -> None:
        super().__init__()
        self._recorder = recorder
        self._search = search
        self._conversations: list[Conversation] = []
        self._renaming: Conversation | None = None

    def compose(self) -> ComposeResult:
        with Vertical(id="conversations") as box:
            box.border_title = "Conversations"
            box.border_subtitle = "Enter resume · ^N rename · ^D delete · Esc close"
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
    def _chosen(self) -> Conversation | None:
        row = self._list.highlighted
        return self._conversations[row] if row is not None and row < len(self._conversations) else None

    async def _fill(self) -> None:
        row = self._list.highlighted or 0
        self._conversations = await self._recorder.conversations(self._search)
        self._list.clear_options()
        self._list.add_options([Option(conversation_line(found)) for found in self._conversations])
        if self._conversations:
            self._list.highlighted = min(row, len(self._conversations) - 1)
        nothing = "Nothing was found" if self._search.strip() else "No conversation was saved yet"
        self.query_one("#nothing", Static).update("" if self._conversations else nothing)

    @on(Input.Changed)
    async def narrow(self, event: Input.Changed) -> None:
        """Filter the list."""
        if self._renaming is None:
            self._search = event.value
            await self._fill()

    @on(Input.Submitted)
    async def enter(self, event: Input.Submitted) -> None:
        """Resume the chosen conversation, or take the new title."""
        if self._renaming is None:
            if self._chosen is not None:
                self.dismiss(self._chosen)
            return
        if event.value.strip():
            await self._recorder.retitle(self._renaming, event.value)
        await self._end_renaming()

    @on(OptionList.OptionSelected)
    def click(self, event: OptionList.OptionSelected) -> None:
        """A click resumes a conversation."""
        self.dismiss(self._conversations[event.option_index])

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
        """Edit the title in the search field."""
        if (conversation := self._chosen) is not None:
            self._renaming = conversation
            self.query_one("#conversations").border_title = "New title"
            self._put(safe_text.one_line(conversation.title))

    async def _end_renaming(self) -> None:
        self.query_one("#conversations").border_title = "Conversations"
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
        """Delete the chosen conversation after a confirmation."""
        conversation = self._chosen
        if conversation is None or self._renaming is not None:
            return
        asked = formatting.pluralize(conversation.exchanges, "question")
        question = f"Delete “{conversation.title}” with {asked}? It cannot be brought back."
        if await self.app.push_screen_wait(ConfirmScreen(question, "Delete")):
            await self._recorder.delete(conversation)
            await self._fill()
