"""The progress of a model's download, from the threads that load it to the screen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from longmamba_mlx.errors import StoppedError
from longmamba_mlx.events import Notice


@dataclass(frozen=True, slots=True)
class Fetching:
    """`done` of `total` bytes of what is downloaded or converted; total 0: not known yet."""

    what: str
    done: int
    total: int


class FetchReportLike(Protocol):
    """Receives the progress of a model download, from any thread."""

    def line(self, text: str) -> None: ...

    def progress(self, what: str, done: int, total: int) -> None: ...


class FetchReport:
    """Passes progress on as events; raises into the download once the user has asked to stop."""

    def __init__(self, put: Callable[[Fetching | Notice], None], stopped: Callable[[], bool]) -> None:
        self._put, self._stopped = put, stopped

    def line(self, text: str) -> None:
        """Report one line of text."""
        self._put(Notice(text))

    def progress(self, what: str, done: int, total: int) -> None:
        """Report progress. Raises StoppedError after a stop; downloaded parts stay in the Hub's cache."""
        if self._stopped():
            raise StoppedError("The download was stopped.", hint="The same command resumes it.")
        self._put(Fetching(what, done, total))
