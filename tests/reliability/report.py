"""Run the plan of reliability and write its table into docs/reliability.md.

    python -m tests.reliability.report [--slow] [--only R2 R3 ...] [--workers N]

Without --slow: the volumes of every change (minutes). With it: the full ones (hours).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import defusedxml.ElementTree as xml

from longmamba_mlx.bench.machine import machine
from tests.reliability.plan import ROWS, Row

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"


@dataclass(frozen=True, slots=True)
class Case:
    """One test that ran. `test`: file::function below tests/, without parameters."""

    test: str
    outcome: str  # passed, failed, skipped
    seconds: float
    figures: tuple[tuple[str, str], ...]  # name, value


def run(rows: Sequence[Row], *, slow: bool, workers: str) -> list[Case]:
    """Run the tests of the rows in one pytest. Raises SystemExit where that does not begin."""
    wanted = sorted({f"tests/{test}" for row in rows for test in row.tests})
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", workers, "-m", "" if slow else "not slow",
             "-o", "junit_family=xunit1", f"--junitxml={results}", *wanted],
            cwd=ROOT, check=False,
        )  # fmt: skip
        if done.returncode not in (0, 1):
            sys.exit(done.returncode)
        return [case_of(element) for element in xml.parse(results).iter("testcase")]


def case_of(element: xml.Element) -> Case:
    outcome = "passed"
    if element.find("skipped") is not None:
        outcome = "skipped"
    elif element.find("failure") is not None or element.find("error") is not None:
        outcome = "failed"
    file = element.get("classname", "").removeprefix("tests.").replace(".", "/")
    figures = tuple((found.get("name", ""), found.get("value", "")) for found in element.iter("property"))
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


def table(cases: Sequence[Case], *, slow: bool) -> str:
    about = machine()
    volume = "full volumes" if slow else "the volumes of every change"
    head = (
        f"{datetime.now(UTC):%d %B %Y}, {about['processor']}, {os.cpu_count()} cores, {sys.platform}; {volume}; "
        f"{sum(case.outcome == 'passed' for case in cases)} tests passed, "
        f"{sum(case.outcome == 'failed' for case in cases)} failed."
    )
    columns = ("row", "promise", "what is done", "tests", "time", "figures", "not covered")
    rule = "|" + "---|" * len(columns)
    return "\n".join([head, "", f"| {' | '.join(columns)} |", rule, *(line(row, cases) for row in ROWS)])


def write(page: Path, body: str) -> None:
    """Put a text between the marks of a page."""
    before, begins, rest = page.read_text(encoding="utf-8").partition("<!-- table -->\n")
    _, ends, after = rest.partition("<!-- /table -->")
    if not begins or not ends:
        sys.exit(f"{page} lacks the marks of a table")
    page.write_text(f"{before}{begins}{body}\n{ends}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the plan of reliability and write docs/reliability.md.")
    parser.add_argument("--slow", action="store_true", help="full volumes: hours")
    parser.add_argument("--only", nargs="+", choices=[row.name for row in ROWS], help="these rows; the others: not run")
    parser.add_argument("--workers", default="auto", help="processes of pytest (default: one a core)")
    given = parser.parse_args()
    rows = [row for row in ROWS if given.only is None or row.name in given.only]
    cases = run(rows, slow=given.slow, workers=given.workers)
    write(PAGE, table(cases, slow=given.slow))
    print(f"Written: {PAGE.relative_to(ROOT)}")
    sys.exit(any(case.outcome == "failed" for case in cases))


if __name__ == "__main__":
    main()
