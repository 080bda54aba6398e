"""The start menu, shown when no document was named: earlier conversations, the sample, a model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from textual import events
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from longmamba_mlx import builtin
from longmamba_mlx.documents.sanitise import clean
from longmamba_mlx.tui.history.store import Conversation
from longmamba_mlx.tui.rendering import formatting, safe_text

_WIDTH = 38  # cells of the first column of a list


class StartMenu(OptionList):
    """The start menu: Enter or a click chooses; anything else typed goes into the prompt."""

    @dataclass
    class Resumed(Message):
        """An earlier conversation was chosen."""

        conversation: Conversation

    @dataclass
    class Wanted(Message):
        """A command was chosen."""

        line: str

    @dataclass
    class Typed(Message):
        """Text that was meant for the prompt; `entered`: and then Enter was pressed."""

        text: str
        entered: bool = False

    def __init__(self, conversations: Sequence[Conversation]) -> None:
        self._conversations = {str(found.id): found for found in conversations}
        self._typing = False
        self._commands = {"sample": f"/open '{builtin.sample_document()}'", "model": "/model", "help": "/help"}
        options: list[Option | None] = [
            Option(conversation_line(found), id=name) for name, found in self._conversations.items()
        ]
        options += [None] if options else []
        options += [
            Option(_line("Read the sample document", "with the built-in model, no download"), id="sample"),
            Option(_line("Choose a model", "what fits this machine"), id="model"),
            Option(_line("Keys and commands", "or type /open and a file's name"), id="help"),
        ]
        super().__init__(*options, markup=False)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        name = event.option.id or ""
        if name in self._conversations:
            self.post_message(self.Resumed(self._conversations[name]))
        else:
            self.post_message(self.Wanted(self._commands[name]))

    def on_key(self, event: events.Key) -> None:
        if event.is_printable and event.character:
            self._typing = True
            self.post_message(self.Typed(event.character))
        elif self._typing and event.key == "enter":  # typed faster than the focus could follow
            self.post_message(self.Typed("", entered=True))
        else:
            return
        event.stop()
        event.prevent_default()

    def on_paste(self, event: events.Paste) -> None:
        event.stop()
        self.post_message(self.Typed(clean(event.text)))


def conversation_line(conversation: Conversation) -> Content:
    """A conversation as one line of a list: title, length, age, document."""
    number = formatting.pluralize(conversation.exchanges, "question")
    details = [number, formatting.ago(time.time() - conversation.updated), safe_text.one_line(conversation.document)]
    title = formatting.shorten(safe_text.one_line(conversation.title), _WIDTH - 2)
    return _line(title, " · ".join(part for part in details if part))


def _line(what: str, detail: str) -> Content:
    return Content.assemble(what.ljust(_WIDTH), (detail, safe_text.DIM))
