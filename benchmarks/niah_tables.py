"""Write the needle tables of README.md and docs/results.md: `python benchmarks/niah_tables.py`.

They come from docs/results/*.json, made by `longmamba-mlx eval niah --json`; docs/results.md says how.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
MODELS = ("demo", "demo-mamba1")
TITLES = {
    "off": "filter off",
    "last": "last 512 tokens only",
    "longmamba": "LongMamba (default)",
    "document": "document",
    "curve": "curve",
    "paper": "paper",
}


def cell(row: dict[str, Any]) -> str:
    nll = "" if row["nll"] is None else f" ({row['nll']:.2f})"
    return f"{row['accuracy']:.3f} ± {row['stderr']:.3f}{nll}"


def table(report: dict[str, Any], filters: list[str]) -> list[str]:
    """One line per length, one column per filter."""
    trained = report["training_length"]
    lines = [
        "| document | " + " | ".join(TITLES[name] for name in filters) + " |",
        "|---" * (len(filters) + 1) + "|",
    ]
    for length in dict.fromkeys(row["length"] for row in report["rows"]):
        rows = {row["filter"]: row for row in report["rows"] if row["length"] == length}
        cells = [cell(rows[name]) if name in rows else "–" for name in filters]
        lines.append(f"| {length:,} tokens ({length / trained:g} × L) | " + " | ".join(cells) + " |")
    return lines


def section(name: str, filters: list[str], task: str = "niah") -> list[str]:
    report = json.loads((RESULTS / f"{task}-{name}.json").read_text(encoding="utf-8"))
    there = {row["filter"] for row in report["rows"]}
    samples = sorted({row["samples"] for row in report["rows"]})
    said = "refused (right)" if "absent" in report["task"] else "exact match ± standard error (NLL per token)"
    return [
        f"**{name}**, {said}; {report['facts']} facts a document, {samples[0]} questions a cell, "
        f"split {report['split']}, seed {report['seed']}, filler {', '.join(report['filler'])}:",
        "",
        *table(report, [f for f in filters if f in there]),
        "",
    ]


def put(path: Path, marker: str, lines: list[str]) -> None:
    text = path.read_text(encoding="utf-8")
    body = "\n".join(lines).strip()
    pattern = re.compile(rf"(<!-- {marker} -->).*?(<!-- /{marker} -->)", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{path.name} has no place for {marker}")
    path.write_text(pattern.sub(lambda m: f"{m[1]}\n{body}\n{m[2]}", text), encoding="utf-8")


def main() -> None:
    first = [line for name in MODELS for line in section(name, ["off", "longmamba", "last"])]
    put(ROOT / "README.md", "results", first)
    for marker, tasks in {"test": ["niah"], "absent": ["absent"], "dev": ["dev", "dev2"]}.items():
        there = [(name, task) for name in MODELS for task in tasks if (RESULTS / f"{task}-{name}.json").exists()]
        lines = [line for name, task in there for line in section(name, list(TITLES), task)]
        put(ROOT / "docs" / "results.md", marker, lines)


if __name__ == "__main__":
    main()
