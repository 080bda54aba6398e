"""What `eval` shows while it measures: a table that grows, and a bar."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longmamba_mlx.evaluation.measure import PlannedDocument, Reader
    from longmamba_mlx.evaluation.report import Row
    from longmamba_mlx.evaluation.samples import Cell, Sample


class Table:
    """Rows on standard output, one when it is known."""

    def __init__(self, training_length: int, likelihood: bool) -> None:
        self.training_length, self.likelihood, self.started = training_length, likelihood, False

    def print(self, cell: Cell, samples: Sequence[Sample], bar: Bar) -> None:
        """The rows of one cell, from all samples so far."""
        from longmamba_mlx.evaluation.report import rows

        if not self.started:
            score = "perplexity" if self.likelihood else "score"
            bar.line(f"{'task':<20} {'filter':>12} {'tokens':>9} {'times L':>8} {'depth':>5} {'n':>5} {score:>15} "
                     f"{'nll':>7} {'whole':>7} {'refused':>7} {'over first (95 %)':>24}")  # fmt: skip
            self.started = True
        for row in rows([sample for sample in samples if sample.cell == cell], likelihood=self.likelihood):
            bar.line(self._line(row))

    def _line(self, row: Row) -> str:
        if row.accuracy is None:
            score = _with_error(math.exp(row.nll or 0.0), math.exp(row.nll or 0.0) * row.stderr, 2)
        else:
            score = _with_error(row.accuracy, row.stderr, 3)
        gain = row.gain
        over = "" if gain is None else f"{gain.difference:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
        name = f"  {row.part}" if row.part else f"{row.task} {row.group}".strip()
        return (
            f"{name:<20} {row.filter:>12} {row.length:>9,} {row.length / self.training_length:>7.3g}x "
            f"{'' if row.depth is None else f'{row.depth:.2f}':>5} {row.samples:>5} {score:>15} "
            f"{_number(row.nll):>7} {_number(row.nll_whole):>7} {row.refused:>7.3f} {over:>24}"
        )


class Bar:
    """How far it is, on standard error where that is a terminal; rows go to standard output around it."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, planned: PlannedDocument[Any], reader: Reader) -> None:
        """A document that is about to be read."""
        cell = planned.cell
        depth = "" if cell.depth is None else f" at {cell.depth:.2f}"
        self._bar.update(self._task, advance=1, description=f"{cell.task} {cell.length:,}{depth} {reader.name}")

    def line(self, text: str) -> None:
        """A line of the table."""
        if sys.stdout.isatty() and sys.stderr.isatty():
            self._bar.stop()
            print(text, flush=True)
            self._bar.start()
        else:
            print(text, flush=True)


def _with_error(value: float, error: float, digits: int) -> str:
    """Format a value with its standard error; a single document has none."""
    return f"{value:.{digits}f}" if math.isnan(error) else f"{value:.{digits}f} ± {error:.{digits}f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
