"""The interface through which a conversion reports notices and progress."""

from __future__ import annotations

from typing import Protocol


class Report(Protocol):
    """Receives a conversion's notices and progress. Methods may be called from other threads."""

    def line(self, text: str) -> None:
        """Show one notice to a person."""
        ...

    def progress(self, what: str, done: int, total: int) -> None:
        """Report that `done` of `total` bytes of the work called `what` are done; total 0: not known yet.

        Called several times a second, also while nothing moves; what it raises ends the work.
        """
        ...


class Silent:
    """A report that ignores everything."""

    def line(self, text: str) -> None:
        """Do nothing."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Do nothing."""
