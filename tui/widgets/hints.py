"""The commands that match what is being typed."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from longmamba_mlx.tui.commands import table
from longmamba_mlx.tui.rendering import safe_text

_ROWS = 8
_OTHERS = 8  # rows that the prompt, the lines above and below it and some of the conversation need


class CommandHints(Static):
    """One line per matching command; hidden while a question is typed."""

    def show(self, line: str) -> None:
        """Show the commands that `line` may become."""
        found = table.matching(line)
        self.set_class(bool(found), "-shown")
        if not found:
            return
        rows = max(min(self.app.size.height - _OTHERS, _ROWS), 2)
        shown = found if len(found) <= rows else found[: rows - 1]
        width = max(len(command.usage) for command in shown) + 2
        lines = [
            Content.assemble((command.usage.ljust(width), "bold $primary"), (command.summary, safe_text.DIM))
            for command in shown
        ]
        if len(shown) < len(found):
            others = " ".join(f"/{command.name}" for command in found[len(shown) :])
            lines.append(Content.assemble(("and ", safe_text.DIM), others))
        self.update(Content("\n").join(lines))
