"""Format footnotes, comments, page headers and footers the same way for all word processor formats."""

from __future__ import annotations

from collections.abc import Iterable


class Notes:
    """Foot- and endnotes, numbered through the document: [1] in the text, "[1] …" after its paragraph."""

    def __init__(self) -> None:
        self._count = 0
        self._pending: list[str] = []

    def refer(self, text: str) -> str:
        """Queue a note and return its reference for the paragraph ("[3]"); "" for an empty note."""
        words = " ".join(text.split())
        if not words:
            return ""
        self._count += 1
        self._pending.append(f"[{self._count}] {words}")
        return f"[{self._count}]"

    def comment(self, text: str, author: str = "") -> None:
        """Queue a comment; it follows its paragraph like a note."""
        if line := comment(text, author):
            self._pending.append(line)

    def take(self) -> list[str]:
        """Return and clear the queued notes and comments."""
        pending, self._pending = self._pending, []
        return pending


def comment(text: str, author: str = "") -> str:
    """A comment as a line; "" where it is empty."""
    words, name = " ".join(text.split()), " ".join(author.split())
    return f"[Comment{f' by {name}' if name else ''}] {words}" if words else ""


def running(kind: str, texts: Iterable[str]) -> list[str]:
    """Headers or footers of pages as lines, each text once; bare page numbers are left out."""
    lines = (" ".join(text.split()) for text in texts)
    return [f"[{kind}] {line}" for line in dict.fromkeys(lines) if any(map(str.isalpha, line))]
