"""Tables, JSON and plots of benchmark rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longmamba_mlx.bench.machine import machine, versions
from longmamba_mlx.evaluation.plots import require_matplotlib
from longmamba_mlx.storage.atomic import write_atomic, write_text

Rows = Sequence[dict[str, Any]]

_EXPONENT = "time_grows_as_length_to_the"
_COLUMNS = (
    ("family", "family", "{}"), ("model", "model", "{}"), ("engine", "engine", "{}"), ("filter", "filter", "{}"),
    ("work", "work", "{}"), ("tokens", "tokens", "{:,}"), ("tokens_per_second", "tokens/s", "{:,.1f}"),
    ("tokens_per_cpu_second", "tokens/CPU s", "{:,.1f}"), ("ours_times_faster", "ours is x", "{:.2f}"),
    ("filter_cost", "filter costs", "{:+.1%}"),
    ("state_ready_seconds", "state ready s", "{:.3f}"), ("shell_to_answer_seconds", "shell to answer s", "{:.2f}"),
    ("peak_rss_mib", "peak MiB", "{:,.0f}"), (_EXPONENT, "time ~ length^", "{:.3f}"),
)  # fmt: skip


def report(rows: Rows, settings: dict[str, object]) -> dict[str, object]:
    """The JSON document: machine, versions, settings, rows."""
    return {"machine": machine(), "versions": versions(), "settings": settings, "rows": list(rows)}


def write_json(path: Path, document: dict[str, object]) -> None:
    """Write it atomically. Raises DiskError."""
    text = json.dumps(document, indent=1) + "\n"
    write_text(path, text, private=False)


def table(rows: Rows, *, markdown: bool = False) -> str:
    """The rows as a text table; columns that no row fills are left out."""
    columns = [column for column in _COLUMNS if any(row.get(column[0]) is not None for row in rows)]
    body = [[_cell(row.get(key), form) for key, _, form in columns] for row in rows]
    heads = [head for _, head, _ in columns]
    if markdown:
        lines = [heads, ["---"] * len(heads), *body]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    widths = [max(len(line[i]) for line in [heads, *body]) for i in range(len(heads))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
                     for line in [heads, *body])  # fmt: skip


def _cell(value: object, form: str) -> str:
    return "" if value is None else form.format(value)


def plot(rows: Rows, path: Path) -> None:
    """Speed by length, one line for each engine; where a growth was fitted, the time, one line for each filter. A PNG.

    Raises UsageError without matplotlib.
    """
    require_matplotlib()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = sorted({_group(row) for row in rows}, key=lambda group: (group.endswith("decode"), group))
    figure, axes = pyplot.subplots(1, len(groups), figsize=(5.2 * len(groups), 4), squeeze=False)
    for axis, group in zip(axes[0], groups, strict=True):
        _draw(axis, [row for row in rows if _group(row) == group])
        axis.set_title(group)
    figure.text(0.5, 0.005, f"{machine()['processor']}; not a Mac's figures", ha="center", fontsize=7)
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    write_atomic(path, lambda draft: figure.savefig(draft, format="png", dpi=140), private=False)
    pyplot.close(figure)


def _draw(axis: Any, rows: Rows) -> None:
    """Lines over the lengths; bars where there is only one."""
    if len({row["tokens"] for row in rows}) == 1:
        axis.barh([_label(row) for row in rows], [row["tokens_per_second"] for row in rows], height=0.6)
        axis.invert_yaxis()
        axis.set_xlabel("tokens per second")
        return
    grows = any(row.get(_EXPONENT) is not None for row in rows)
    speed = "tokens_per_cpu_second" if grows else "tokens_per_second"
    for label in dict.fromkeys(_label(row) for row in rows):
        rates = [(row["tokens"], row[speed]) for row in rows if _label(row) == label]
        points = sorted((tokens, tokens / rate if grows else rate) for tokens, rate in rates)
        axis.loglog(*zip(*points, strict=True), marker="o", label=label, linewidth=1.4)
    lengths = sorted({row["tokens"] for row in rows})
    axis.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axis.set_xticks([], minor=True)
    axis.set(xlabel="tokens", ylabel="seconds of the processor" if grows else "tokens per second")
    axis.grid(True, which="both", alpha=0.25)
    axis.legend(fontsize=8)


def _group(row: dict[str, Any]) -> str:
    return f"{row.get('family') or row.get('model')}: {row['work']}"


def _label(row: dict[str, Any]) -> str:
    exponent = row.get(_EXPONENT)
    growth = "" if exponent is None else f": time ~ length^{exponent:.2f}"
    return f"{row['engine']}, filter {row['filter']}{growth}" if row.get("filter") else str(row["engine"])
