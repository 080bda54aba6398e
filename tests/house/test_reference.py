"""The generated reference pages are those of today's code: run `python docs/reference/make.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_the_reference_is_that_of_the_code() -> None:
    done = run("docs/reference/make.py", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_reference_is_noticed(tmp_path: Path) -> None:
    """The check reads the folder it lies in: a copy with one word changed."""
    folder = tmp_path / "docs" / "reference"
    folder.mkdir(parents=True)
    for page in REFERENCE.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        (folder / page.name).write_text(text.replace("Never", "Always", 1), encoding="utf-8")
    script = (REFERENCE / "make.py").read_text(encoding="utf-8")
    (folder / "make.py").write_text(script.replace("Path(__file__).resolve().parents[2]", f"Path({str(ROOT)!r})"))
    done = run(str(folder / "make.py"), "--check")
    assert done.returncode == 1 and "cli.md is not what the code says" in done.stdout
