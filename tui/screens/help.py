"""F1: keys and commands, from the command table."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Grid, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from longmamba_mlx.tui.commands.table import COMMANDS, HEADINGS, Command

KEYS = (
    ("Enter", "Ask"),
    ("Ctrl+J", "New line; Shift+Enter in terminals that know it"),
    ("Up, Down", "What was asked before, the draft is kept; or a command of the list"),
    ("Page Up, Down", "Scroll; new text is followed from the bottom only"),
    ("Esc", "Stop; when nothing runs, take back a queued question"),
    ("Ctrl+C", "Copy the selection, else stop; twice: leave"),
    ("Tab", "Complete a command; or go to a passage: Enter shows it in the text, Space all of it here"),
    ("F2", "The text: Page Up and Down, [ and ] for chapters, / to find, n and N for matches, Esc goes back"),
    ("F3", "The memory map: left and right walk along it, Enter goes there"),
    ("F4, Ctrl+R", "Earlier conversations; resume the last one"),
    ("F5", "Get a real model that fits this machine"),
    ("Ctrl+P", "Menu, with the themes"),
    ("Ctrl+Z", "Suspend; fg in the shell brings the chat back"),
    ("Ctrl+Q", "Leave"),
)

_ABOUT = (
    "The document is read once and kept as a state of constant size. Every question starts from that state, "
    "so an answer does not know the question before it, unless you ask with /keep. The memory map shows how much of "
    "each stretch the filter let into the long memory, not what the model knows. A small model can be wrong: "
    "related passages are "
    "found by searching the text after the answer. Only where it says ✓ quote does the answer stand in the "
    "document word for word; numbers and codes that stand nowhere in it are named under the answer."
)


class HelpScreen(ModalScreen[None]):
    """Closes with Esc, F1, Enter or q."""

    CSS_PATH = "help.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,enter,q", "dismiss", "Close", show=False)]

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (60, "-normal"), (140, "-wide")]  # noqa: RUF012

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help") as box:
            box.border_title = "Help"
            box.border_subtitle = "Esc closes"
            with Container(id="columns"):  # side by side where there is room, so that nothing needs scrolling
                with Vertical():
                    yield Static("Keys", classes="part", markup=False)
                    yield from _table(KEYS)
                    yield Static("What the answers are", classes="part", markup=False)
                    yield Static(_ABOUT, markup=False)
                with Vertical():
                    for part, own in groupby(COMMANDS, key=lambda command: command.group):
                        yield Static(HEADINGS[part], classes="part", markup=False)
                        yield from _table((command.usage, _summary(command)) for command in own)


def _summary(command: Command) -> str:
    return f"{command.summary} ({command.key})" if command.key else command.summary


def _table(rows: Iterable[tuple[str, str]]) -> ComposeResult:
    with Grid(classes="table"):
        for left, right in rows:
            yield Static(Content.styled(left, "bold"), markup=False)
            yield Static(right, classes="says", markup=False)
