"""A conversion's notices and progress on stderr: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from longmamba_mlx.documents import one_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class TerminalReport:
    """See `longmamba_mlx.conversion.report.Report`; a context manager, so that the bar is always taken away."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
            from rich.progress import TransferSpeedColumn as Speed

            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(), DownloadColumn(), Speed(), TimeRemainingColumn(),
            )  # fmt: skip
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def line(self, text: str) -> None:
        """One notice."""
        plain = one_line(text, 500)
        if self._bar is None:
            print(plain, file=sys.stderr, flush=True)
        else:
            self._bar.console.print(plain, markup=False, highlight=False)

    def progress(self, what: str, done: int, total: int) -> None:
        """Bytes so far; shown on a terminal only."""
        if self._bar is None:
            return
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(one_line(what, 60), total=total or None)
        self._bar.update(self._tasks[what], completed=min(done, total), total=total or None)
