"""F1: the keys and the commands, from the one table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from longmamba_mlx.tui.commands import COMMANDS

_KEYS = (
    ("Enter", "Ask"),
    ("Ctrl+J", "New line; Shift+Enter in terminals that know it"),
    ("Up, Down", "What was asked before; the draft is kept"),
    ("Page Up, Down", "Scroll; new text is followed from the bottom only"),
    ("Esc", "Stop; when nothing runs, take back a queued question"),
    ("Ctrl+C", "Copy what is selected, else stop; twice: leave"),
    ("Tab", "Complete a command; or go to a passage, Enter opens it"),
    ("Ctrl+P", "Menu, with the themes"),
    ("Ctrl+Q", "Leave"),
)

_ABOUT = (
    "The document is read once and kept as a state of constant size. Every question starts from that state, "
    "so an answer does not know the question before it. A small model can be wrong: related passages are "
    "found by searching the text after the answer. Only where it says ✓ quote does the answer stand in the "
    "document word for word."
)


class HelpScreen(ModalScreen[None]):
    """Closes with Esc, F1, Enter or q."""

    CSS_PATH = "help_screen.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,enter,q", "dismiss", "Close", show=False)]

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help") as box:
            box.border_title = "Help"
            box.border_subtitle = "Esc closes"
            yield Static("Keys", classes="part", markup=False)
            yield from _table(_KEYS)
            yield Static("Commands", classes="part", markup=False)
            yield from _table((command.usage, command.summary) for command in COMMANDS)
            yield Static("What the answers are", classes="part", markup=False)
            yield Static(_ABOUT, markup=False)


def _table(rows: Iterable[tuple[str, str]]) -> ComposeResult:
    with Grid(classes="table"):
        for left, right in rows:
            yield Static(Content.styled(left, "bold"), markup=False)
            yield Static(right, markup=False)
