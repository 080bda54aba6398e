"""Print the rows of `longmamba-mlx models`: a table if it fits, else two lines per model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, cast

from longmamba_mlx.cli.model_rows import Row
from longmamba_mlx.documents import one_line
from longmamba_mlx.ground.sizes import format_size
from longmamba_mlx.registry.known_models import Recommendation, recommendations, recommended

_WIDE = 165
_LEGEND = """
* is the default, > is recommended for this machine. "fits" compares a model
with this machine's memory; "with -q" means that it fits in 4 bits. Sizes of
models that are not on this machine are computed. Licence and context are
statements of the publishers; empty means unchecked. `longmamba-mlx use MODEL`
makes a model the default, and downloads it if necessary."""


def print_models(rows: list[Row]) -> None:
    """Recommendations first; nothing is ever cut."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False, markup=False)
    mine = recommended()
    console.print("Recommended, by memory")
    for row in recommendations():
        console.print(_recommendation(row, mine))
    show = _print_table if console.width >= _WIDE else _print_list
    for title, part in _sections(rows):
        console.print(title)
        show(console, part)
    for caveat, names in _caveats(rows).items():
        console.print(f"\n{names}: {caveat}.")
    print(_LEGEND)


def _recommendation(row: Recommendation, mine: Recommendation) -> str:
    model = f"{row.checkpoint.repository}{' -q' if row.quantised else ''}"
    return f"{'>' if row == mine else ' '} {row.gigabytes:3} GB  {model:40} {format_size(row.size)}"


def _sections(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    here = [row for row in rows if row["installed"]]
    rest = [row for row in rows if not row["installed"]]
    return [(title, part) for title, part in (("\nOn this machine", here), ("\nKnown models", rest)) if part]


def _caveats(rows: list[Row]) -> dict[str, str]:
    """Each caveat once, with the kind of the models that it is about, or their names."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if caveat := str(row["caveat"]):
            found.setdefault(caveat, []).append(str(row.get("kind") or row["model"]))
    return {caveat: ", ".join(dict.fromkeys(names)) for caveat, names in found.items()}


def _print_table(console: Any, rows: list[Row]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, highlight=False)
    right = ("weights", "bits", "size", "context")
    for title in _COLUMNS:
        table.add_column(title, justify="right" if title in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(column(row) for column in _COLUMNS.values()))
    console.print(table)


def _print_list(console: Any, rows: list[Row]) -> None:
    for row in rows:
        facts = [_weights(row), f"{row['bits']} bit", _size(row), _context(row), str(row.get("licence") or ""),
                 str(row.get("kind") or ""), _FITS[str(row["fits"])], _place(row)]  # fmt: skip
        console.print(f"{'*' if row['default'] else ' '} {_name(row)}")
        console.print(f"    {' · '.join(fact for fact in facts if fact)}")


def _name(row: Row) -> str:
    return one_line(str(row["model"]), 200)


def _size(row: Row) -> str:
    return format_size(cast("int", row["download_bytes"]))


def _weights(row: Row) -> str:
    count = row.get("parameters")
    if not isinstance(count, int):
        return ""
    return f"{count / 1e9:g}B" if count >= 1e9 else f"{count / 1e6:g}M"


def _context(row: Row) -> str:
    tokens = row.get("context")
    if not isinstance(tokens, int):
        return ""
    return f"{tokens >> 20}M" if tokens >= 1 << 20 else f"{tokens >> 10}k"


def _place(row: Row) -> str:
    return str(row.get("place") or ("here" if row["installed"] else ""))


_FITS = {"yes": "fits", "with -q": "fits with -q", "no": "too large"}
_COLUMNS: dict[str, Callable[[Row], str]] = {
    "": lambda row: "*" if row["default"] else "",
    "model": _name,
    "family": lambda row: str(row["family"]),
    "weights": _weights,
    "bits": lambda row: str(row["bits"]),
    "size": _size,
    "context": _context,
    "licence": lambda row: str(row.get("licence") or ""),
    "kind": lambda row: str(row.get("kind") or ""),
    "fits": lambda row: str(row["fits"]),
    "here": _place,
}
