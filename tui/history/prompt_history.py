"""What was asked before: up and down in the prompt. The unsent draft is kept at the end."""

from __future__ import annotations


class PromptHistory:
    """Entries, oldest first, and a place in them; the place after the last one is the draft."""

    def __init__(self) -> None:
        self._entries: list[str] = []
        self._place = 0
        self._draft = ""

    def add(self, text: str) -> None:
        """Remember what was sent; the same text twice in a row is one entry."""
        if not self._entries or self._entries[-1] != text:
            self._entries.append(text)
        self._place = len(self._entries)
        self._draft = ""

    def older(self, current: str) -> str | None:
        """The entry before the present place; None at the oldest. `current` is kept when it is the draft."""
        if self._place == 0:
            return None
        if self._place == len(self._entries):
            self._draft = current
        self._place -= 1
        return self._entries[self._place]

    def newer(self) -> str | None:
        """The entry after the present place, at last the draft; None when the draft is shown already."""
        if self._place == len(self._entries):
            return None
        self._place += 1
        return self._draft if self._place == len(self._entries) else self._entries[self._place]
