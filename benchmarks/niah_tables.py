"""Write the needle tables of README.md, docs/results.md and its appendix: `python benchmarks/niah_tables.py`.

They come from docs/results/*.json, made by `measure_results.py`. Reports on earlier weights lie in folders of their
own, docs/results/earlier/WHICH-WEIGHTS/*.json, and make the last section of docs/appendix/experiments.md:
`--retire four-layers` moves those on `demo` there, before new weights are measured.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a checkout that is not installed

from longmamba_mlx.evaluation.attributes import ATTRIBUTES, UNSEEN  # noqa: E402

RESULTS, APPENDIX = ROOT / "docs" / "results", ROOT / "docs" / "appendix" / "results.md"
EARLIER, EXPERIMENTS = RESULTS / "earlier", ROOT / "docs" / "appendix" / "experiments.md"
MODELS = ("demo", "demo-mamba1")
TITLES = {
    "off": "filter off",
    "last": "last 512 tokens only",
    "longmamba": "LongMamba (default)",
    "document": "document",
    "curve": "curve",
    "paper": "paper",
    "decimamba": "DeciMamba",
    "surest": "surest part",
}
KINDS = {item.name: item.kind for item in (*ATTRIBUTES, *UNSEEN)}
SEEDS = "seeds"  # folder of RESULTS: MODEL/SEED/{codes,exam}.json, made by seeds.py
MISSING = "Not measured with these weights."
Report = dict[str, Any]


def read(task: str, model: str, folder: Path = RESULTS) -> Report | None:
    """A report, None where it was not measured."""
    path = folder / f"{task}-{model}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def cell(row: Report) -> str:
    nll = "" if row["nll"] is None else f" ({row['nll']:.2f})"
    if row["stderr"] is None:  # of one document
        return f"{row['accuracy']:.3f}{nll}"
    if row["accuracy"] is None:
        return f"{math.exp(row['nll']):.1f} ± {math.exp(row['nll']) * row['stderr']:.1f}"
    return f"{row['accuracy']:.3f} ± {row['stderr']:.3f}{nll}"


def by_filter(report: Report) -> list[str]:
    """One line per length, one column per filter."""
    trained, there = report["training_length"], dict.fromkeys(row["filter"] for row in report["rows"])
    order = list(TITLES)
    filters = sorted(there, key=lambda name: order.index(name) if name in order else len(order))
    lines = [
        "| document | " + " | ".join(TITLES.get(name, name) for name in filters) + " |",
        "|---" * (len(filters) + 1) + "|",
    ]
    for length in dict.fromkeys(row["length"] for row in report["rows"]):
        rows = {row["filter"]: row for row in report["rows"] if row["length"] == length and not row.get("part")}
        cells = [cell(rows[name]) if name in rows else "–" for name in filters]
        lines.append(f"| {length:,} tokens ({length / trained:g} × L) | " + " | ".join(cells) + " |")
    return lines


def by_depth(report: Report) -> list[str]:
    """One line per depth, one column per length and filter."""
    rows = {(row["filter"], row["length"], row["depth"]): row["accuracy"] for row in report["rows"]}
    columns = list(dict.fromkeys((name, length) for name, length, _ in rows))
    columns.sort(key=lambda column: (list(TITLES).index(column[0]), column[1]))
    lines = [
        "| depth | " + " | ".join(f"{TITLES[name]}, {length:,}" for name, length in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for depth in sorted({depth for _, _, depth in rows}):
        cells = [f"{rows[name, length, depth]:.2f}" for name, length in columns]
        lines.append(f"| {depth:.0%} | " + " | ".join(cells) + " |")
    return lines


def by_kind(report: Report) -> list[str]:
    """One line per kind of value, one column per length and filter; the number of questions in parentheses."""
    columns = list(dict.fromkeys((row["length"], row["filter"]) for row in report["rows"]))
    columns.sort(key=lambda column: (column[0], list(TITLES).index(column[1])))
    kinds, whole = Counter[tuple[int, str, str]](), dict[tuple[int, str], str]()
    right = Counter[tuple[int, str, str]]()
    for row in report["rows"]:
        column = row["length"], row["filter"]
        if row["part"]:
            key = *column, KINDS.get(row["part"], row["part"])
            kinds[key] += row["samples"]
            right[key] += row["samples"] * row["accuracy"]
        else:
            whole[column] = f"{cell({**row, 'nll': None})} ({row['samples']})"
    lines = [
        "| question about | " + " | ".join(f"{length:,} tokens, {TITLES[name]}" for length, name in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
        "| **all** | " + " | ".join(whole[column] for column in columns) + " |",
    ]
    for kind in sorted({kind for *_, kind in kinds}):
        keys = [(*column, kind) for column in columns]
        cells = [f"{right[key] / kinds[key]:.3f} ({kinds[key]})" if kinds[key] else "–" for key in keys]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return lines


def by_policy(report: Report) -> list[str]:
    """One line per policy, with what it gains over the first."""
    lines = ["| tokens | policy | right ± standard error (NLL) | over the first, 95 % interval |", "|---|---|---|---|"]
    for row in report["rows"]:
        gain = row["gain"]
        over = "" if gain is None else f"{gain['difference']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"
        lines.append(f"| {row['length']:,} | {row['filter']} | {cell(row)} | {over} |")
    return lines


def section(model: str, task: str, folder: Path = RESULTS) -> list[str]:
    """A report's table with its heading; nothing where it was not measured."""
    report = read(task, model, folder)
    if report is None:
        return []
    samples = max(row["samples"] for row in report["rows"])
    kind = "exam-absent" if task == "exam-absent" else task.split("-")[0]
    said, table = {
        "absent": ("refused (right)", by_filter),
        "ppl": ("perplexity of the last 100 tokens of a window ± standard error", by_filter),
        "depth": ("exact match by depth of the fact", by_depth),
        "exam": ("exact match ± standard error", by_kind),
        "exam-absent": ("refused (right)", by_kind),
        "policies": ("exact match", by_policy),
        "baselines": ("exact match", by_policy),
    }.get(kind, ("exact match ± standard error (NLL per token)", by_filter))
    count = report.get("facts", 0)
    facts = f"{count} fact{'s' if count > 1 else ''} a document, " if count else ""
    split = f", split {report['split']}, seed {report['seed']}" if "split" in report else ""
    source = ", ".join(report.get("filler") or report.get("texts") or [])
    each = "windows" if kind == "ppl" else "questions"
    return [
        f"**{model}**, {said}; {facts}{samples} {each} a cell{split}, text {source}:",
        "",
        *table(report),
        "",
    ]


def put(path: Path, marker: str, lines: list[str]) -> None:
    text = path.read_text(encoding="utf-8")
    body = "\n".join(lines).strip()
    pattern = re.compile(rf"(<!-- {marker} -->).*?(<!-- /{marker} -->)", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{path.name} has no place for {marker}")
    path.write_text(pattern.sub(lambda m: f"{m[1]}\n{body}\n{m[2]}", text), encoding="utf-8")


MARKERS = {
    "test": ("niah", "far"),
    "absent": ("absent",),
    "depth": ("depth",),
    "ppl": ("ppl",),
    "dev": ("modes",),
    "sweeps": ("theta", "clamp"),
    "exam": ("exam", "exam-absent", "exam-far"),
    "baselines": ("baselines",),
    "farther": ("farther-dev", "farther", "farther-tuned", "millions", "surest", "surest-far"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--retire", metavar="WEIGHTS", help="name of the earlier weights, as a folder: four-layers")
    parser.add_argument("--model", default="demo", choices=MODELS, help="for --retire")
    options = parser.parse_args()
    if options.retire:
        retire(options.model, options.retire)
    for page in (ROOT / "README.md", ROOT / "docs" / "results.md"):
        put(page, "results", brief())
    for marker, tasks in MARKERS.items():
        lines = [line for model in MODELS for task in tasks for line in section(model, task)]
        put(APPENDIX, marker, lines or [MISSING])
    put(EXPERIMENTS, "earlier", [line for folder in sorted(EARLIER.iterdir()) for line in earlier(folder)])
    put(APPENDIX, "kept", kept_table())
    put(APPENDIX, "passkey", passkey_table())
    put(ROOT / "docs" / "results.md", "seeds", [line for model in MODELS for line in seeds_table(model)] or [MISSING])


def retire(model: str, weights: str) -> None:
    """Move a model's reports to the folder of the earlier weights. Raises SystemExit if there are some already."""
    target = EARLIER / weights
    if not re.fullmatch(r"[a-z0-9-]+", weights) or target.exists():
        raise SystemExit(f"{weights!r} is there already, or not in small letters and hyphens")
    target.mkdir(parents=True)
    for path in sorted(RESULTS.glob("*.json")):
        if path.stem.endswith(f"-{model}"):
            shutil.move(path, target / path.name)


def earlier(folder: Path) -> list[str]:
    """The tables of earlier weights, in the order of the appendix."""
    lines = [f"### {folder.name.replace('-', ' ').capitalize()}", ""]
    tasks = [*(task for marker in MARKERS.values() for task in marker), "policies", "policies-far"]
    return lines + [line for model in MODELS for task in tasks for line in section(model, task, folder)]


def kept_table() -> list[str]:
    """What the filters keep in the heads that remember, by length."""
    report = read("kept", "demo")
    if report is None:
        return [MISSING]
    lines = [
        "| filter | layer, head | tokens read | kept | digits of facts | other digits |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        ends = row["tokens"] == report["tokens"]
        if ends or (row["filter"] == "paper" and row["tokens"] < 0.9 * report["tokens"]):
            counts = " | ".join(f"{row[name]:,}" for name in ("tokens", "kept", "facts", "digits"))
            lines.append(f"| `{row['filter']}` | {row['layer']}, {row['head']} | {counts} |")
    return lines


def passkey_table() -> list[str]:
    """The pass key by the surest part, for each size of a part."""
    report = read("passkey", "demo")
    if report is None:
        return [MISSING]
    lines = ["| way | parts | right | states |", "|---|---|---|---|"]
    for size in dict.fromkeys(row["size"] for row in report["rows"]):
        rows = [row for row in report["rows"] if row["size"] == size]
        right = f"{sum(row['right'] for row in rows)} of {len(rows)}"
        parts, nbytes = rows[0]["parts"], rows[0]["parts"] * rows[0]["state_bytes"]
        lines.append(f"| surest of parts of {size:,} tokens | {parts:,} | {right} | {nbytes / 1e9:.1f} GB |")
    return lines


def seeds_table(model: str) -> list[str]:
    """One line per seed of the last stage, one column per exam, length and filter; then their mean and spread."""
    columns: dict[str, dict[str, Report]] = {}
    shipped = set()
    for exam in ("codes", "exam"):
        for path in sorted((RESULTS / SEEDS / model).glob(f"*/{exam}.json")):
            report, seed = json.loads(path.read_text(encoding="utf-8")), path.parent.name
            shipped |= {seed} if report["shipped"] else set()
            for row in report["rows"]:
                if not row.get("part") and not (row["filter"] == "off" and row["length"] == report["training_length"]):
                    named = f"{exam}, {row['length'] // report['training_length']} × L"
                    columns.setdefault(named + ", off" * (row["filter"] == "off"), {})[seed] = row
    seeds = sorted({seed for column in columns.values() for seed in column})
    if not seeds:
        return []
    lines = [f"| {model}, seed | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for seed in seeds:
        cells = [cell({**column[seed], "nll": None}) if seed in column else "–" for column in columns.values()]
        lines.append(f"| {f'**{seed}** (shipped)' if seed in shipped else seed} | {' | '.join(cells)} |")
    rates = [[row["accuracy"] for row in column.values()] for column in columns.values()]
    spread = [f"{mean(some):.3f} ± {stdev(some):.3f}" if len(some) > 1 else "–" for some in rates]
    return [*lines, f"| mean ± standard deviation over seeds | {' | '.join(spread)} |", ""]


def brief() -> list[str]:
    """The README's table: every other length of both models, filter off and on."""
    columns = {(model, name): points(model, name) for model in MODELS for name in ("off", "longmamba")}
    heads = [f"{model}, {TITLES[name]}" for model, name in columns]
    lines = ["Answers right (exact match ± standard error) about four facts hidden in a novel:", "",
             f"| document | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]  # fmt: skip
    lengths = sorted(set.intersection(*(set(column) for column in columns.values())))
    if not lengths:
        return [MISSING]
    for length in lengths:
        row = [cell({**column[length], "nll": None}) for column in columns.values()]
        lines.append(f"| {length:,} tokens ({length // 512} × L) | {' | '.join(row)} |")
    ends = [{column[length]["samples"] for column in columns.values()} for length in (lengths[0], lengths[-1])]
    each, furthest = ("/".join(map(str, sorted(samples))) for samples in ends)
    said = f"{each} questions a cell" + (f", {furthest} at {lengths[-1] // 512} × L" if each != furthest else "")
    return [*lines, "", f"L = 512 is the training length; {said}; names and book unseen in training."]


def points(model: str, name: str) -> dict[int, Report]:
    """A filter's rows of all measured lengths."""
    reports = [report for task in ("niah", "far") if (report := read(task, model)) is not None]
    return {row["length"]: row for report in reports for row in report["rows"] if row["filter"] == name}


if __name__ == "__main__":
    main()
