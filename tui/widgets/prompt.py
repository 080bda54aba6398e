"""The prompt: Enter submits, Ctrl+J starts a new line, up and down recall earlier questions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import TextArea

from longmamba_mlx.documents.sanitise import clean
from longmamba_mlx.tui.commands import table
from longmamba_mlx.tui.history.prompt_history import PromptHistory
from longmamba_mlx.tui.rendering import formatting, safe_text

_NEW_LINE = ("ctrl+j", "shift+enter", "alt+enter")
_TITLE_WIDTH = 40


class Prompt(TextArea):
    """A text area that grows with its text and posts `Submitted`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+underscore,super+z", "undo", "Undo", show=False),  # Ctrl+Z suspends
        Binding("pageup", "scroll_log(-1)", "Scroll up", show=False),
        Binding("pagedown", "scroll_log(1)", "Scroll down", show=False),
    ]

    @dataclass
    class Submitted(Message):
        """Enter was pressed on this text."""

        text: str

    @dataclass
    class Scrolled(Message):
        """Scroll the conversation a page up (-1) or down (1)."""

        pages: int

    @dataclass
    class HintMoved(Message):
        """Up (-1) or down (1) was pressed while a command is typed."""

        step: int

    class Left(Message):
        """Tab was pressed: go to the passages."""

    def __init__(self) -> None:
        super().__init__(
            show_line_numbers=False,
            soft_wrap=True,
            highlight_cursor_line=False,
            tab_behavior="focus",
            compact=True,
        )
        self.asked = PromptHistory()
        self._recalled = False  # whether the text came from the history, which up and down go on in then
        self.chosen_command = ""
        """The command that Tab takes."""
        self.invite(None)

    def invite(self, title: str | None) -> None:
        """Say what can be asked about; None when no document is open."""
        name = formatting.shorten(safe_text.one_line(title), _TITLE_WIDTH) if title else ""
        self.placeholder = Content(f"Ask about {name}…" if name else "Type a question, or /open FILE")

    def put(self, text: str) -> None:
        """Replace what is typed and set the cursor behind it."""
        self._recalled = False
        self.text = text
        self.move_cursor(self.document.end)

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            self.submit()
        elif event.key in _NEW_LINE:
            self.insert("\n")
            self.scroll_cursor_visible()
        elif event.key == "tab":
            if not self._complete():
                self.post_message(self.Left())
        else:
            self._recalled = self._recalled and event.key in ("up", "down")
            return  # an ordinary key: TextArea's own handler comes next
        event.stop()
        event.prevent_default()

    async def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        self.insert(clean(event.text))

    def action_cursor_up(self, select: bool = False) -> None:
        if self._choosing():
            self.post_message(self.HintMoved(-1))
        elif not select and self._row() == 0:
            self._recall(self.asked.older(self.text))
        else:
            super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        if self._choosing():
            self.post_message(self.HintMoved(1))
        elif not select and self._row() == self.wrapped_document.height - 1:
            self._recall(self.asked.newer())
        else:
            super().action_cursor_down(select)

    def action_scroll_log(self, pages: int) -> None:
        """Scroll the conversation without leaving the prompt."""
        self.post_message(self.Scrolled(pages))

    def submit(self) -> None:
        """Submit the text, unless it is empty."""
        if text := self.text.strip():
            # A leading space is what tells a question that begins with "/" from a command.
            leading = " " if self.text.startswith(" ") else ""
            self.asked.add(self.text)
            self.text = ""
            self.post_message(self.Submitted(leading + text))

    def _choosing(self) -> bool:
        """Whether a command is being typed, of which there are several."""
        return not self._recalled and " " not in self.text and len(table.matching(self.text)) > 1

    def _complete(self) -> bool:
        found = table.matching(self.text)
        if not found or " " in self.text:
            return bool(found)
        chosen = next((command for command in found if command.name == self.chosen_command), found[0])
        self.put(f"/{chosen.name}" + (" " if chosen.argument else ""))
        return True

    def _recall(self, text: str | None) -> None:
        if text is not None:
            self.put(text)
            self._recalled = True

    def _row(self) -> int:
        return self.wrapped_document.location_to_offset(self.cursor_location).y
