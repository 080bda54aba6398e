"""The licence check allows what it should and nothing else, and never calls an unanswered question a good answer."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_dependencies", ROOT / "packaging" / "check_dependencies.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True), ("MIT License", True), ("Apache-2.0 OR GPL-3.0-only", True),
        ("Apache-2.0 AND GPL-3.0-only", False),
        ("(MIT OR GPL-2.0-only) AND BSD-3-Clause", True), ("(MIT AND GPL-2.0-only) OR AGPL-3.0-only", False),
        ("Apache-2.0 WITH LLVM-exception", True), ("GPL-3.0-only WITH GCC-exception-3.1", False), ("", False),
        ("UNKNOWN", False), ("LGPL-2.1", False), ("GNU General Public License v3 (GPLv3)", False), ("MIT-like", False),
        ("Proprietary", False), ("((MIT))", True), ("MIT AND", False),
    ],
)  # fmt: skip
def test_which_licences_are_allowed(check: ModuleType, licence: str, allowed: bool) -> None:
    assert check.is_allowed(licence) is allowed


def test_all_dependencies_are_followed(check: ModuleType) -> None:
    found, missing = check.wanted()
    assert {"mlx", "numpy", "tokenizers", "markupsafe", "pytest"} <= found.keys()  # MarkupSafe: only through Jinja
    assert not [name for name, needed in missing.items() if needed]


def test_no_answer_is_not_a_good_answer(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check.sys, "argv", ["check_dependencies.py"])
    monkeypatch.setattr(check.importlib.util, "find_spec", lambda name: name)
    found, _ = check.wanted()
    monkeypatch.setattr(check, "wanted", lambda: ({"numpy": found["numpy"]}, {}))
    gone = "Traceback\n...\nrequests.exceptions.ConnectionError: HTTPSConnectionPool(host='pypi.org', port=443)"
    for output, said, code, told in (
        ("", gone, 3, "PyPI could not be reached"), ("no JSON", "", 3, "printed nothing"), ("", "x" * 999, 3, "xxx..."),
        ('{"dependencies": [{"name": "numpy", "skip_reason": "not on PyPI"}]}', "", 3, "does not know"),
        ('{"dependencies": [{"name": "numpy", "version": "1", "vulns": []}]}', "", 0, ""),
        ('{"dependencies": [{"name": "numpy", "version": "1", "vulns": [{"id": "CVE-1"}]}]}', "", 1, "CVE-1"),
    ):  # fmt: skip
        answer = subprocess.CompletedProcess([], 1, output, said)
        monkeypatch.setattr(check.subprocess, "run", lambda *_, answer=answer, **__: answer)
        assert check.main() == code, output
        errors = capsys.readouterr().err.splitlines()
        assert len(errors) == (code != 0) and told in "".join(errors)
        assert all(line.startswith("Error: ") and len(line) < 300 for line in errors)
