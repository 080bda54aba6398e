"""The plan names tests that are there, and its table tells what they did."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability import report
from tests.reliability.plan import ROWS, Row
from tests.reliability.report import Case, line, write

TESTS = Path(__file__).resolve().parents[1]


def test_every_row_is_there_once() -> None:
    assert [row.name for row in ROWS] == [f"R{number}" for number in range(1, 27)] + ["modes", "tokenizers", "readers"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_test_of_a_row_exists(row: Row) -> None:
    for test in row.tests:
        file, _, function = test.partition("::")
        assert (
            f"def {function}(" in (TESTS / file).read_text(encoding="utf-8") if function else (TESTS / file).is_file()
        )


def test_a_line_tells_failures_and_figures(tmp_path: Path) -> None:
    row = Row("R0", "P1", "what", ("a/test_b.py::test_c", "a/test_d.py"), "a Mac")
    cases = [
        Case("a/test_b.py::test_c", "passed", 1.4, (("kills", "5"), ("codes", "2 times 130"))),
        Case("a/test_b.py::test_other", "failed", 9.0, ()),
        Case("a/test_d.py::test_e", "failed", 2.0, (("kills", "4"),)),
    ]
    assert line(row, cases) == "| R0 | P1 | what | 1 passed, 1 failed | 3 s | kills: 9; codes: 2 times 130 | a Mac |"
    assert "not run" in line(row, [])


def test_a_table_goes_between_its_own_marks(tmp_path: Path) -> None:
    page, other = tmp_path / "page.md", "<!-- quick -->\nother\n<!-- /quick -->\n"
    for old in ("", "old\n"):
        page.write_text(f"before\n{other}<!-- full -->\n{old}<!-- /full -->\nafter\n")
        write(page, "full", r"new \1")
        assert page.read_text() == f"before\n{other}<!-- full -->\nnew \\1\n<!-- /full -->\nafter\n"
    page.write_text("no marks")
    with pytest.raises(SystemExit):
        write(page, "full", "new")


def test_results_of_earlier_runs_stay_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "R26.xml").write_text(
        '<testsuites><testsuite><testcase classname="tests.reliability.test_soak" name="test_a[x]" time="2">'
        '<properties><property name="questions" value="200"/></properties></testcase></testsuite></testsuites>'
    )
    lines = report.table("full").splitlines()
    assert "full volumes; 1 tests passed, 0 failed." in lines[0]
    assert next(line for line in lines if "questions: 200" in line).startswith("| R26 | P5 |")
    assert sum("not run" in line for line in lines) == len(ROWS) - 1
