"""Figures as papers print them: heat maps of depth and length, curves with standard errors, bars by task."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longmamba_mlx.errors import UsageError
from longmamba_mlx.evaluation.report import Row
from longmamba_mlx.filtering.calibration.report import CalibrationReport

_WIDTH, _HEIGHT = 4.2, 3.0  # inches of one panel
_MARKS = "os^Dvp*Xh"


def require_matplotlib() -> None:
    """Raises UsageError with the command that installs what figures need, before anything is measured."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("Figures need matplotlib.", hint="pip install 'longmamba-mlx[plots]'")


def draw(rows: Sequence[Row], path: Path, *, title: str, training_length: int) -> None:
    """One figure (PNG, or whatever `path` ends in) of the rows of one measurement. Raises DiskError, UsageError."""
    _save(_figure(rows, title, training_length), path)


def draw_calibration(report: CalibrationReport, path: Path, *, title: str) -> None:
    """One figure of a calibration: global units and T by layer, where clamps saturate, what is kept at which length."""
    figure, axes = _panels(4, 2)
    places = [layer.layer for layer in report.layers]
    axes[0].bar(places, [100 * layer.global_share for layer in report.layers], color="tab:blue")
    axes[0].set(title="global units", xlabel="layer", ylabel="%", ylim=(0, 100))
    for axis, what, label in ((axes[1], "budgets", "T (sum of Δ in a window)"), (axes[2], "saturation", "tokens")):
        for layer in report.layers:
            values = getattr(layer, what)
            there = values[np.isfinite(values) & (values > 0)]
            axis.scatter([layer.layer] * len(there), there, s=6, alpha=0.4, color="tab:blue")
        axis.set(xlabel="layer", ylabel=label, yscale="log")
    axes[1].set_title("budget T of every global unit")
    axes[2].set_title("clamp saturates at")
    lengths = [row.length for row in report.lengths]
    _line(axes[3], lengths, [row.kept_tokens for row in report.lengths], None, "share of tokens kept", 0)
    _line(axes[3], lengths, [row.kept_mass for row in report.lengths], None, "kept Δ / T, median", 1)
    _line(axes[3], lengths, [row.kept_mass_high for row in report.lengths], None, "kept Δ / T, 95 %", 2)
    axes[3].set(xscale="log", yscale="log", title="what is kept", xlabel="document (tokens)")
    axes[3].set_xticks(lengths, [_short(length) for length in lengths], fontsize=7)
    axes[3].minorticks_off()
    axes[3].legend(fontsize=7, frameon=False)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    from longmamba_mlx.storage.atomic import write_atomic

    kind = path.suffix.removeprefix(".") or "png"
    if kind not in figure.canvas.get_supported_filetypes():
        raise UsageError(f"Figures cannot be written as .{kind}.", hint="For example: --plot figure.png")
    write_atomic(path, lambda draft: figure.savefig(draft, format=kind, dpi=200, bbox_inches="tight"), private=False)


def _figure(rows: Sequence[Row], title: str, training_length: int) -> Any:
    tasks = list(dict.fromkeys(row.task for row in rows))
    if any(row.depth is not None for row in rows):
        figure = _heat_maps(rows)
    elif rows[0].accuracy is None:
        figure = _likelihood_curves(rows, training_length)
    elif len({row.length for row in rows}) > 1 and not _by_document_length(rows):
        figure = _curves(rows, tasks, training_length)
    else:
        figure = _bars(rows, tasks)
    figure.suptitle(title, fontsize=10)
    return figure


def _by_document_length(rows: Sequence[Row]) -> bool:
    """Whether lengths are the documents' own, one to each task and group."""
    seen = {(row.task, row.group, row.filter) for row in rows}
    return len(seen) == len(rows) and len({row.task for row in rows}) > 1


def _panels(count: int, columns: int) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = min(count, columns)
    down = math.ceil(count / across)
    figure = Figure(figsize=(_WIDTH * across, _HEIGHT * down), layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(down, across, squeeze=False)).ravel()
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, list(axes[:count])


def _heat_maps(rows: Sequence[Row]) -> Any:
    """One map a filter: depth downwards, length to the right, the score in every cell."""
    filters = _filters(rows)
    lengths, depths = sorted({row.length for row in rows}), sorted({row.depth or 0.0 for row in rows})
    figure, axes = _panels(len(filters), 3)
    image = None
    for axis, name in zip(axes, filters, strict=True):
        grid = np.full((len(depths), len(lengths)), np.nan)
        for row in rows:
            if row.filter == name and row.accuracy is not None:
                grid[depths.index(row.depth or 0.0), lengths.index(row.length)] = row.accuracy
        image = axis.imshow(grid, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
        _write_cells(axis, grid)
        axis.set_xticks(range(len(lengths)), [_short(length) for length in lengths])
        axis.set_yticks(range(len(depths)), [f"{100 * depth:.0f} %" for depth in depths])
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("document (tokens)")
        axis.set_ylabel("depth of the fact")
    figure.colorbar(image, ax=axes, shrink=0.8, label="share right")
    return figure


def _write_cells(axis: Any, grid: Any) -> None:
    if grid.size > 150:
        return
    for (line, column), value in np.ndenumerate(grid):
        if not math.isnan(value):
            ink = "black" if 0.15 < value < 0.85 else "white"
            axis.text(column, line, f"{value:.2f}", ha="center", va="center", fontsize=7, color=ink)


def _curves(rows: Sequence[Row], tasks: Sequence[str], training_length: int) -> Any:
    """Score against length, a panel a task; of several tasks their mean first."""
    panels = (["mean of all tasks"] if len(tasks) > 1 else []) + list(tasks)
    figure, axes = _panels(len(panels), 4)
    for axis, panel in zip(axes, panels, strict=True):
        for place, name in enumerate(_filters(rows)):
            there = [row for row in rows if row.filter == name and (row.task == panel or panel not in tasks)]
            lengths = sorted({row.length for row in there})
            means, errors = zip(*(_mean([row for row in there if row.length == length]) for length in lengths),
                                strict=True)  # fmt: skip
            _line(axis, lengths, means, errors, name, place)
        axis.set_ylim(-0.03, 1.03)
        _length_axis(axis, rows, training_length, panel, "score")
    return figure


def _likelihood_curves(rows: Sequence[Row], training_length: int) -> Any:
    """Perplexity against length: of the scored last tokens, and of whole windows where all tokens were read."""
    figure, axes = _panels(2, 2)
    for place, name in enumerate(_filters(rows)):
        there = sorted((row for row in rows if row.filter == name), key=lambda row: row.length)
        last = [math.exp(row.nll or 0.0) for row in there]
        errors = [value * row.stderr for value, row in zip(last, there, strict=True)]  # d exp(x) = exp(x) dx
        _line(axes[0], [row.length for row in there], last, errors, name, place)
        whole = [row for row in there if row.nll_whole is not None]
        _line(
            axes[1], [row.length for row in whole], [math.exp(row.nll_whole or 0.0) for row in whole], None, name, place
        )
    for axis, what in zip(axes, ("last 100 tokens", "whole window"), strict=True):
        _length_axis(axis, rows, training_length, what, "perplexity")
        if max(math.exp(row.nll or 0.0) for row in rows) > 10 * min(math.exp(row.nll or 0.0) for row in rows):
            axis.set_yscale("log")
    return figure


def _bars(rows: Sequence[Row], tasks: Sequence[str]) -> Any:
    """Scores of tasks without a length axis, with standard errors, a panel a group."""
    groups, filters = list(dict.fromkeys(row.group for row in rows)), _filters(rows)
    figure, axes = _panels(len(groups), 1)
    width = 0.8 / len(filters)
    for axis, group in zip(axes, groups, strict=True):
        for place, name in enumerate(filters):
            found = {row.task: row for row in rows if row.filter == name and row.group == group}
            there = [(number, found[task]) for number, task in enumerate(tasks) if task in found]
            axis.bar(
                [number + (place - (len(filters) - 1) / 2) * width for number, _ in there],
                [row.accuracy or 0.0 for _, row in there],
                width,
                yerr=[_finite(row.stderr) for _, row in there],
                label=name,
                error_kw={"linewidth": 0.7},
            )
        axis.set_xticks(range(len(tasks)), tasks, rotation=40, ha="right", fontsize=7)
        axis.set_title(group, fontsize=9)
        axis.set_ylabel("score")
        axis.legend(fontsize=7, frameon=False)
    return figure


def _mean(rows: Sequence[Row]) -> tuple[float, float]:
    """Mean score of independent rows and its standard error."""
    scores = [row.accuracy or 0.0 for row in rows]
    spread = math.sqrt(sum(_finite(row.stderr) ** 2 for row in rows)) / len(rows)
    return sum(scores) / len(scores), spread


def _line(
    axis: Any, x: Sequence[float], y: Sequence[float], errors: Sequence[float] | None, name: str, place: int
) -> None:
    spread = None if errors is None else [_finite(error) for error in errors]
    axis.errorbar(
        x, y, yerr=spread, label=name, marker=_MARKS[place % len(_MARKS)], markersize=4, linewidth=1.2, capsize=2
    )


def _length_axis(axis: Any, rows: Sequence[Row], training_length: int, title: str, label: str) -> None:
    lengths = sorted({row.length for row in rows})
    axis.set_xscale("log", base=2)
    axis.set_xticks(lengths, [_short(length) for length in lengths], fontsize=7)
    axis.minorticks_off()
    axis.axvline(training_length, color="grey", linewidth=0.8, linestyle=":")
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("tokens (dotted: training length)", fontsize=8)
    axis.set_ylabel(label)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=7, frameon=False)


def _filters(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.filter for row in rows))


def _finite(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _short(length: int) -> str:
    """4096 -> "4k", 1048576 -> "1M", others in full."""
    for unit, name in ((1 << 20, "M"), (1 << 10, "k")):
        if length >= unit and length % unit == 0:
            return f"{length // unit}{name}"
    return f"{length:,}"
