"""The commands that match what is being typed."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from longmamba_mlx.tui.commands import table
from longmamba_mlx.tui.commands.table import Command
from longmamba_mlx.tui.rendering import safe_text

_ROWS = 8
_OTHERS = 8  # rows that the prompt, the lines above and below it and some of the conversation need


class CommandHints(Static):
    """One line per matching command, scrolled with up and down; hidden while a question is typed."""

    def __init__(self) -> None:
        super().__init__(markup=False)
        self._found: tuple[Command, ...] = ()
        self._row = self._top = 0

    @property
    def chosen(self) -> Command | None:
        """The command that the cursor is on."""
        return self._found[self._row] if self._found else None

    def show(self, line: str) -> None:
        """Show the commands that `line` may become, the cursor on the first."""
        found = table.matching(line)
        self.set_class(bool(found), "-shown")
        if found != self._found:
            self._found, self._row, self._top = found, 0, 0
        self._draw()

    def move(self, step: int) -> None:
        """Move the cursor, around the ends of the list."""
        if self._found:
            self._row = (self._row + step) % len(self._found)
            self._draw()

    def _draw(self) -> None:
        if not self._found:
            return
        rows = max(min(self.app.size.height - _OTHERS, _ROWS), 2)
        more = len(self._found) > rows
        room = rows - more  # the last row tells where in the list this is
        self._top = min(max(self._top, self._row - room + 1), self._row)
        shown = self._found[self._top : self._top + room]
        width = max(len(command.usage) for command in self._found) + 2
        lines = [self._line(command, width) for command in shown]
        if more:
            lines.append(Content.styled(f"{self._row + 1} of {len(self._found)} · ↑ ↓ move, Tab takes", safe_text.DIM))
        self.update(Content("\n").join(lines))

    def _line(self, command: Command, width: int) -> Content:
        usage = "bold $primary reverse" if command == self.chosen and len(self._found) > 1 else "bold $primary"
        gap = " " * (width - len(command.usage))
        return Content.assemble((command.usage, usage), gap, (command.summary, safe_text.DIM))
