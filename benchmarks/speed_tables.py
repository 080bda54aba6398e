"""Run every speed benchmark; rewrite tables and plots of docs/benchmarks.md: `python benchmarks/speed_tables.py`.

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
PAGE = DOCS / "benchmarks.md"
RUNS = {
    "peers": ["peers"],
    "prefill": ["prefill"],
    "prefill-compiled": ["prefill"],
    "decode": ["decode"],
    "scan": ["scan"],
    "reopen": ["reopen"],
}
PLOTS = ("peers", "prefill")
SETTINGS = {"prefill-compiled": {"LONGMAMBA_KERNEL": "compiled"}}
KEPT = ("peers-avx512",)  # measured once on another machine: only their tables are made again


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
        raise SystemExit(f"docs/benchmarks.md has no marks for {name}")
    return f"{before}{start}\n{table}\n{end}{after}"


def measured_on(document: dict) -> str:
    machine, versions = document["machine"], document["versions"]
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Measured on {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB, "
        f"{machine['system']}; commit {machine['commit']}; {packages}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", action="store_true", help="only rewrite the tables")
    parser.add_argument("--only", choices=RUNS, help="run one of them")
    args = parser.parse_args()
    names = [args.only] if args.only else list(RUNS)
    page = PAGE.read_text()
    for name in (*names, *(() if args.only else KEPT)):
        if name in RUNS and not args.tables:
            run(name, RUNS[name])
        document = json.loads((FOLDER / f"{name}.json").read_text())
        page = rewrite(page, name, measured_on(document) + "\n\n" + report.table(document["rows"], markdown=True))
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
