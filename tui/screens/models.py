"""Choose a model: local ones, and those that fit this machine and have to be downloaded."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from longmamba_mlx.tui.rendering import safe_text
from longmamba_mlx.tui.screens.model_choices import ModelChoice, model_choices


class ModelsScreen(ModalScreen["str | None"]):
    """The name of the chosen model, None when none was."""

    CSS_PATH = "models.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Close", show=False),
        Binding("down", "move(1)", "Down", show=False),
        Binding("up", "move(-1)", "Up", show=False),
    ]

    def __init__(self, current: str) -> None:
        super().__init__()
        self._current = current
        self._choices = model_choices()

    def compose(self) -> ComposeResult:
        with Vertical(id="models") as box:
            box.border_title = "Models"
            box.border_subtitle = "Enter use · Esc close"
            yield OptionList(*(Option(self._line(choice)) for choice in self._choices), markup=False)
            yield Input(placeholder="Another: a folder or a Hub id, owner/name", compact=True)
            yield Static("What is open is read again with it. Nothing is downloaded before you agree.", markup=False)

    def on_mount(self) -> None:
        choices = self.query_one(OptionList)
        choices.can_focus = False
        names = [choice.name for choice in self._choices]
        choices.highlighted = names.index(self._current) if self._current in names else 0
        self.query_one(Input).focus()

    def _line(self, choice: ModelChoice) -> Content:
        mark = "● " if choice.name == self._current else "○ "
        name, detail = safe_text.one_line(choice.name), safe_text.one_line(choice.detail)
        return Content.assemble(mark, (name, "bold"), "\n    ", (detail, safe_text.DIM))

    @on(OptionList.OptionSelected)
    def click(self, event: OptionList.OptionSelected) -> None:
        """A click chooses."""
        self.dismiss(self._choices[event.option_index].name)

    @on(Input.Submitted)
    def enter(self, event: Input.Submitted) -> None:
        """Choose the typed model, else the highlighted one."""
        row = self.query_one(OptionList).highlighted
        if event.value.strip():
            self.dismiss(event.value.strip())
        elif row is not None:
            self.dismiss(self._choices[row].name)

    def action_move(self, step: int) -> None:
        if step > 0:
            self.query_one(OptionList).action_cursor_down()
        else:
            self.query_one(OptionList).action_cursor_up()
