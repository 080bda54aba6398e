"""While a command is typed: what it may become."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from longmamba_mlx.tui import commands, plain


class CommandHints(Static):
    """One line per matching command; not there while a question is typed."""

    def show(self, line: str) -> None:
        """Show the commands that `line` may become."""
        found = commands.matching(line)
        self.set_class(bool(found), "-shown")
        if found:
            width = max(len(command.usage) for command in found) + 2
            lines = [
                Content.assemble((command.usage.ljust(width), "bold $primary"), (command.summary, plain.DIM))
                for command in found
            ]
            self.update(Content("\n").join(lines))
