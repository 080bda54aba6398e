"""Run every speed benchmark; rewrite docs/benchmarks.md and its appendix: `python benchmarks/speed_tables.py`.

With `--tables` nothing is run again: the tables are made from the JSON files of the last run. A whole run takes about
an hour and a half with all peers installed; let the machine do nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from longmamba_mlx.bench import report

DOCS = Path(__file__).resolve().parents[1] / "docs"
FOLDER = DOCS / "benchmarks"
SUMMARY, TABLES = DOCS / "benchmarks.md", DOCS / "appendix" / "benchmarks.md"
RUNS = {
    "peers": ["peers"],
    "prefill": ["prefill", "--lengths", "4096,65536,262144,1048576"],
    "prefill-numpy": ["prefill"],
    "decode": ["decode"],
    "scan": ["scan"],
    "reopen": ["reopen"],
}
OURS = "longmamba-mlx"
PLOTS = ("peers", "prefill")
SETTINGS = {"prefill-numpy": {"LONGMAMBA_KERNEL": "numpy"}}


def run(name: str, command: list[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    extra = ["--plot", str(FOLDER / f"{name}.png")] if name in PLOTS else []
    subprocess.run(
        [sys.executable, "-m", "longmamba_mlx", "bench", *command, "--json", str(FOLDER / f"{name}.json"), *extra],
        check=True,
        env=os.environ | SETTINGS.get(name, {}),
    )


def rewrite(page: str, name: str, table: str) -> str:
    """Replace what stands between the two marks of `name`."""
    start, end = f"<!-- {name} -->", f"<!-- end {name} -->"
    before, _, rest = page.partition(start)
    _, _, after = rest.partition(end)
    if not rest or not after:
        raise SystemExit(f"no page has marks for {name}")
    return f"{before}{start}\n{table}\n{end}{after}"


def measured_on(document: dict) -> str:
    machine, versions = document["machine"], document["versions"]
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Measured on {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB, "
        f"{machine['system']}; commit {machine['commit']}; {packages}."
    )


def beside_peers(document: dict) -> str:
    """One line per family and kind of work, at the longest text that every engine read: how often ours is as fast."""
    rows = document["rows"]
    engines = [engine for engine in dict.fromkeys(row["engine"] for row in rows) if engine != OURS]
    lines = ["| work | ours, tokens/s | " + " | ".join(engines) + " |", "|---" * (len(engines) + 2) + "|"]
    for family, work in dict.fromkeys((row["family"], row["work"]) for row in rows):
        own = {(row["engine"], row["tokens"]): row for row in rows if (row["family"], row["work"]) == (family, work)}
        tokens = max(
            (count for _, count in own if all((engine, count) in own for engine in engines)),
            default=max(count for _, count in own),
        )
        ratios = [own.get((engine, tokens), {}).get("ours_times_faster") for engine in engines]
        cells = ["–" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        speed = own[OURS, tokens]["tokens_per_second"]
        lines.append(f"| {family}, {work}, {tokens:,} tokens | {speed:.1f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", action="store_true", help="only rewrite the tables")
    parser.add_argument("--only", choices=RUNS, help="run one of them")
    args = parser.parse_args()
    page = TABLES.read_text(encoding="utf-8")
    for name in [args.only] if args.only else RUNS:
        if not args.tables:
            run(name, RUNS[name])
        document = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        page = rewrite(page, name, measured_on(document) + "\n\n" + report.table(document["rows"], markdown=True))
        if name == "peers":
            summary = SUMMARY.read_text(encoding="utf-8")
            SUMMARY.write_text(rewrite(summary, "beside", beside_peers(document)), encoding="utf-8")
    TABLES.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
