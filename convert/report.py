"""What a conversion tells while it works, and to whom."""

from __future__ import annotations

from typing import Protocol


class Report(Protocol):
    """Where a conversion's notices and progress go. Methods may be called from other threads."""

    def line(self, text: str) -> None:
        """One notice for a person."""
        ...

    def progress(self, what: str, done: int, total: int) -> None:
        """`done` of `total` bytes of a long piece of work called `what`; total 0: not known yet.

        Told several times a second, also while nothing moves; what it raises ends the work.
        """
        ...


class Silent:
    """Tells nobody."""

    def line(self, text: str) -> None:
        """Nothing."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Nothing."""
