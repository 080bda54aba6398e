"""Questions to ask about a document that was just read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from longmamba_mlx.tui.rendering import safe_text


class Suggestions(OptionList):
    """Example questions, and the overview; Enter or a click asks, Esc goes back to the prompt."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "screen.back", "Back to the prompt", show=False)]

    @dataclass
    class Chosen(Message):
        """A question or a command was chosen."""

        line: str

    def __init__(self, questions: Sequence[str]) -> None:
        self._choices = [*questions, "/overview"]
        options = [safe_text.literal(safe_text.one_line(question)) for question in questions]
        overview = Content.assemble("/overview", ("  what this document is about", safe_text.DIM))
        super().__init__(*map(Option, [*options, overview]), markup=False)
        self.border_title = "Try asking (Tab, Enter)"

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.post_message(self.Chosen(self._choices[event.option_index]))
