"""The reading bar and the numbers beside it while a document, a model or a question needs something read."""

from __future__ import annotations

import time
from collections.abc import Callable

from longmamba_mlx.events import Counted, Loaded, Loading, ReadProgress
from longmamba_mlx.tui.view import ChatView
from longmamba_mlx.tui.worker.download import Fetching

_LONG_SECONDS = 60.0  # a reading of a folder that takes longer needs the user's consent
_SETTLE_SECONDS = 1.0  # until the speed of a reading is known
_PROGRESS_SECONDS = 1 / 5


class ReadingDisplay:
    """Shows readings as they run. `clock`: the seconds by which a reading is found to be long."""

    def __init__(self, view: ChatView, clock: Callable[[], float]) -> None:
        self._view, self._clock = view, clock
        self._progress: ReadProgress | Fetching | None = None  # the newest numbers, not shown yet
        self._shown_at = 0.0
        self._since: float | None = None  # when the running reading made its first progress

    def begin(self, title: str) -> None:
        """Show that something is about to be read, under the user's name for it."""
        self._since = None
        self._view.bar.begin(title)

    def end(self) -> None:
        """Hide the bar, and forget what it has not shown."""
        self._progress = None
        self._view.bar.end()

    def take(self, event: Loading | Loaded | Counted | ReadProgress | Fetching, *, for_question: bool) -> None:
        """Show an event, numbers at the next `tick`. `for_question`: it is read because of the running question."""
        if isinstance(event, ReadProgress | Fetching):
            self._progress = event
            return
        if for_question:
            self._begin_once("once more, for the comparison")
        self._view.bar.report(event)
        if isinstance(event, Loaded):
            self._view.title_bar.show_model(event.name)
        elif isinstance(event, Counted):
            self._view.title_bar.show(f"reading {event.title}")

    def tick(self, *, for_question: bool) -> None:
        """Show the newest numbers, a few times a second: drawing takes the interpreter from the reading."""
        if time.monotonic() - self._shown_at >= _PROGRESS_SECONDS:
            self.flush(for_question=for_question)

    def flush(self, *, for_question: bool) -> None:
        """Show the newest numbers now."""
        if self._progress is None:
            return
        if for_question:
            self._begin_once("what the question needs")
        self._view.bar.report(self._progress)
        if isinstance(self._progress, ReadProgress):
            self._view.status.memory(self._progress.memory)
        self._progress, self._shown_at = None, time.monotonic()

    def is_long(self, progress: ReadProgress) -> bool:
        """Whether the reading takes more than a minute from now on, once its speed is known."""
        self._since = self._since or self._clock()
        return self._clock() - self._since >= _SETTLE_SECONDS and progress.seconds_left > _LONG_SECONDS

    def _begin_once(self, title: str) -> None:
        if not self._view.bar.has_class("-shown"):
            self._view.bar.begin(title)
