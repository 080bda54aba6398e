"""Run the plan of reliability row by row and write its table into docs/reliability.md.

    python -m tests.reliability.report [--slow] [--only R2 R3 ...] [--resume] [--workers N]

Without --slow: the volumes of every change (minutes). With it: the full ones (hours). Results stay in
build/reliability, so that a run of some rows leaves the others in the table, and an interrupted run is resumed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import defusedxml.ElementTree as xml

from longmamba_mlx.bench.machine import machine
from longmamba_mlx.storage.atomic import write_text
from tests.reliability.plan import ROWS, Row

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "build" / "reliability"  # volume / row.xml
VOLUMES = {"quick": "the volumes of every change", "full": "full volumes"}


@dataclass(frozen=True, slots=True)
class Case:
    """One test that ran. `test`: file::function below tests/, without parameters."""

    test: str
    outcome: str  # passed, failed, skipped
    seconds: float
    figures: tuple[tuple[str, str], ...]  # name, value


def run(row: Row, results: Path, *, slow: bool, workers: str) -> None:
    """Run a row's tests; `results` is written once all of them have ended. SystemExit where pytest cannot run them."""
    results.parent.mkdir(parents=True, exist_ok=True)
    unfinished = results.with_suffix(".tmp")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", workers, "-m", "" if slow else "not slow",
         "-o", "junit_family=xunit1", f"--junitxml={unfinished}", *(f"tests/{test}" for test in row.tests)],
        cwd=ROOT, check=False,
    )  # fmt: skip
    if done.returncode not in (0, 1):
        sys.exit(done.returncode)
    unfinished.replace(results)


def read(results: Path) -> list[Case]:
    """The cases of a row; none where it has not run."""
    return [case_of(element) for element in xml.parse(results).iter("testcase")] if results.exists() else []


def case_of(element: xml.Element) -> Case:
    outcome = "passed"
    if element.find("skipped") is not None:
        outcome = "skipped"
    elif element.find("failure") is not None or element.find("error") is not None:
        outcome = "failed"
    file = element.get("classname", "").removeprefix("tests.").replace(".", "/")
    figures = tuple((found.get("name", ""), found.get("value", "")) for found in element.iter("property"))
    figures = tuple(figure for figure in figures if not figure[0].startswith("hypothesis"))  # its own statistics
    name = element.get("name", "").partition("[")[0]
    return Case(f"{file}.py::{name}", outcome, float(element.get("time", 0)), figures)


def line(row: Row, cases: Iterable[Case]) -> str:
    """A row of the table: how many tests ran and failed, how long they took, what they counted."""
    found = [case for case in cases if case.test in row.tests or case.test.partition("::")[0] in row.tests]
    count = {outcome: sum(case.outcome == outcome for case in found) for outcome in ("passed", "failed", "skipped")}
    told = summed([figure for case in found for figure in case.figures])
    result = ", ".join(f"{number} {outcome}" for outcome, number in count.items() if number) or "not run"
    seconds = sum(case.seconds for case in found)
    cells = (row.name, row.promise, row.what, result, f"{seconds:.0f} s" if found else "", told, row.open)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def summed(figures: Sequence[tuple[str, str]]) -> str:
    """Figures in words; counts of one name are added."""
    values: dict[str, list[str]] = {}
    for name, value in figures:
        values.setdefault(name, []).append(value)
    return "; ".join(
        f"{name}: {sum(map(int, found)) if all(map(str.isdecimal, found)) else ' and '.join(found)}"
        for name, found in values.items()
    )


def table(volume: str) -> str:
    """The table of all rows that have run with this volume."""
    results = {row: RESULTS / volume / f"{row.name}.xml" for row in ROWS}
    found = {row: read(path) for row, path in results.items()}
    ended = [datetime.fromtimestamp(path.stat().st_mtime, UTC) for path in results.values() if path.exists()]
    days = dict.fromkeys(f"{day:%d %B %Y}" for day in (min(ended), max(ended)))
    about, outcomes = machine(), [case.outcome for cases in found.values() for case in cases]
    head = (
        f"{' to '.join(days)}, {about['processor']}, "
        f"{os.cpu_count()} cores, {sys.platform}; {VOLUMES[volume]}; {outcomes.count('passed')} tests passed, "
        f"{outcomes.count('failed')} failed."
    )
    columns = ("row", "promise", "what is done", "tests", "time", "figures", "not covered")
    rule = "|" + "---|" * len(columns)
    return "\n".join([head, "", f"| {' | '.join(columns)} |", rule, *(line(row, found[row]) for row in ROWS)])


def write(page: Path, volume: str, body: str) -> None:
    """Put a text between the marks of a volume in a page."""
    before, begins, rest = page.read_text(encoding="utf-8").partition(f"<!-- {volume} -->\n")
    _, ends, after = rest.partition(f"<!-- /{volume} -->")
    if not begins or not ends:
        sys.exit(f"{page} lacks the marks of a table")
    write_text(page, f"{before}{begins}{body}\n{ends}{after}", private=False)  # whole for a run beside this one


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the plan of reliability and write docs/reliability.md.")
    parser.add_argument("--slow", action="store_true", help="full volumes: hours")
    parser.add_argument("--only", nargs="+", choices=[row.name for row in ROWS], help="these rows; the others stay")
    parser.add_argument("--resume", action="store_true", help="do not run rows again that have results")
    parser.add_argument("--workers", default="auto", help="processes of pytest (default: one a core)")
    given = parser.parse_args()
    volume = "full" if given.slow else "quick"
    for row in ROWS:
        results = RESULTS / volume / f"{row.name}.xml"
        if (given.only is None or row.name in given.only) and not (given.resume and results.exists()):
            run(row, results, slow=given.slow, workers=given.workers)
        if results.exists():
            write(PAGE, volume, table(volume))
    print(f"Written: {PAGE.relative_to(ROOT)}")
    sys.exit(any(case.outcome == "failed" for row in ROWS for case in read(RESULTS / volume / f"{row.name}.xml")))


if __name__ == "__main__":
    main()
