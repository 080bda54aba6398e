"""Events of a session as progress on stderr: a bar on a terminal, nothing in a pipe; notices always."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from longmamba_mlx.documents import one_line
from longmamba_mlx.events import Counted, Event, Loading, Notice, ReadDone, ReadProgress
from longmamba_mlx.ground.sizes import format_size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def follow(events: Iterable[Event]) -> ReadDone:
    """Show a reading as it goes, and return how it ended."""
    done: ReadDone | None = None
    with ReadingBar() as bar:
        for event in events:
            bar.show(event)
            if isinstance(event, ReadDone):
                done = event
    if done is None:
        raise RuntimeError("a reading ends with ReadDone or an error")
    return done


def summary(done: ReadDone) -> str:
    """One line about a finished reading."""
    how = "Reopened" if done.reopened else "Read"
    now = done.tokens - done.before
    speed = "" if done.reopened or done.seconds <= 0 else f", {now / done.seconds:,.0f} tokens/s"
    return (
        f"{how} {one_line(done.title)}: {done.tokens:,} tokens in {done.seconds:.1f} s{speed}, "
        f"state {format_size(done.state_bytes)}, filter {done.filter}"
    )


class ReadingBar:
    """A bar with tokens/s and time left, if standard error is a terminal."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[rest]}"),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar off the screen; nothing happens when it is not there."""
        if self._bar is not None:
            self._bar.stop()

    def show(self, event: Event) -> None:
        if isinstance(event, Notice):
            print(f"Note: {one_line(event.text, 500)}", file=sys.stderr)
        if self._bar is None:
            return
        if isinstance(event, Loading):
            self._begin(f"Loading {event.name}")
        elif isinstance(event, Counted):
            self._bar.update(
                self._begin("Reading"), description=f"Reading {one_line(event.title, 40)}", total=event.tokens
            )
        elif isinstance(event, ReadProgress):
            place = f"  {one_line(event.place, 30)}" if event.place else ""
            rest = (
                f"{event.done:,} of {event.total:,} tokens  {event.tokens_per_second:,.0f} tokens/s  "
                f"{event.seconds_left:.0f} s left  {format_size(event.memory)}{place}"
            )
            self._bar.update(self._begin("Reading"), completed=event.done, total=event.total, rest=rest)

    def _begin(self, description: str) -> TaskID:
        """Start the bar on first use; return its task."""
        if self._task is None and self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(description, total=None, rest="")
        return cast("TaskID", self._task)
