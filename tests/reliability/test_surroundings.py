"""R25: a clock that is set back or ahead, odd homes and locales: it works, or says why in one line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from longmamba_mlx.events import ReadDone
from longmamba_mlx.paths import conversations_file, state_folder
from longmamba_mlx.session.session import Session
from longmamba_mlx.states import size_limit
from longmamba_mlx.states.store import StateStore
from longmamba_mlx.storage import atomic
from longmamba_mlx.tui.history.store import ConversationStore

ROOT = Path(__file__).resolve().parents[2]
QUESTION = "What is the access code of Zorvath?"
YEAR = 365 * 86_400


def read(file: Path) -> ReadDone:
    session = Session(chunk=256)
    (done,) = [event for event in session.open([str(file)]) if isinstance(event, ReadDone)]
    assert list(session.ask(QUESTION))[-1].answer.text == "48213"
    return done


@pytest.mark.parametrize("by", (-30 * YEAR, -3600, 30 * YEAR), ids=("decades back", "an hour back", "decades ahead"))
def test_a_clock_that_is_set(by: int, tmp_path: Path, story: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "story.txt"
    file.write_text(story, encoding="utf-8")
    first, real = read(file), time.time
    assert not first.reopened
    store, talks = StateStore(state_folder()), ConversationStore(conversations_file())
    (entry,) = store.list()
    drafts = entry.path.parent / f".tmp-{os.getpid()}-0123456789ab"
    drafts.mkdir()
    talk = talks.begin("before", entry.digest, [str(file)], "demo")
    monkeypatch.setattr(time, "time", lambda: real() + by)
    os.utime(entry.path, (real() + by, real() + by))
    os.utime(file, (real() - by, real() - by))
    assert read(file).reopened, "a time is no part of what a document is known by"
    other = tmp_path / "other.txt"
    other.write_text(story[:-200], encoding="utf-8")
    size_limit.set_limit(store, entry.nbytes + 1000)
    assert read(other).stored
    assert len(store.list()) == 1 and store.list()[0].digest != entry.digest, "what was just read is kept"
    assert atomic.sweep(drafts.parent) == 0 and drafts.is_dir(), "its process is alive, however old it looks"
    later = talks.begin("after", entry.digest, [str(file)], "demo")
    assert {found.id for found in talks.conversations()} == {talk, later}


@pytest.mark.parametrize(
    ("name", "locale"),
    [("with blanks  in it", "C"), ("📚 Bücher", "C"), ("📚 Bücher", "nonsense"), ("n" * 200, "POSIX")],
)
def test_odd_homes_and_locales(name: str, locale: str, tmp_path: Path, story: str) -> None:
    file = tmp_path / f"{name[:60]}.txt"
    file.write_text(story, encoding="utf-8")
    result = ask(file, LONGMAMBA_HOME=str(tmp_path / name), LC_ALL=locale)
    assert (result.returncode, result.stdout) == (0, "48213\n"), result.stderr
    assert list((tmp_path / name / "states").glob("*/*.safetensors"))


@pytest.mark.parametrize("home", ("file", "file/below", "/proc/none"))
def test_a_home_that_takes_nothing_costs_the_memory_not_the_answer(home: str, tmp_path: Path, story: str) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "story.txt").write_text(story, encoding="utf-8")
    result = ask(tmp_path / "story.txt", LONGMAMBA_HOME=str(tmp_path / home))
    assert (result.returncode, result.stdout) == (0, "48213\n"), result.stderr
    assert "Not remembered" in result.stderr and "Traceback" not in result.stderr


def ask(file: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "longmamba_mlx", "ask", "--file", str(file), QUESTION],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, encoding="utf-8", timeout=60, check=False,
    )  # fmt: skip
