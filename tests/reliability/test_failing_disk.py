"""R2: the n-th write, sync, rename or read of a reading fails, for n = 1, 2, ...: by the system itself, once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
compiler = shutil.which("cc")
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or compiler is None, reason="preloads a library built with the C compiler, on Linux"
)

# One process reads, with a fault each time, a document that is new to its store; another one is there before.
READ = """
    import ctypes, errno, json, os, shutil, sys
    from pathlib import Path
    from longmamba_mlx.documents import Document
    from longmamba_mlx.paths import state_folder
    from longmamba_mlx.session.api import load
    from longmamba_mlx.session.open_document import open_document
    from longmamba_mlx.states import checkpoints
    from longmamba_mlx.states.state_file import read_state
    from longmamba_mlx.states.store import StateStore
    from longmamba_mlx.ground.steps import Steps

    library, folder = ctypes.CDLL(sys.argv[1]), Path(os.environ["FAULT_FOLDER"])
    text, stride = sys.stdin.read(), int(sys.argv[2])
    checkpoints.EVERY_TOKENS, checkpoints.MOST_COST, checkpoints.CLOSEST_PLACES = 1, 1e9, 128
    model, question = load("demo"), "What is the access code of Zorvath?"

    def opened(name):
        steps = Steps(open_document(model, Document(name, text if name == "new" else text[:400]), chunk=64))
        list(steps)
        book = steps.result
        return book, book.ask(question).text if name == "new" else ""

    def bits(state):
        return [bytes(memoryview(array)) for array in state.arrays().values()]

    old, _ = opened("old")
    shutil.move(state_folder(), folder.parent / "before")
    whole, answer = opened("new")
    assert answer == "48213", answer
    kinds = {"write": 1, "sync": 2, "rename": 3, "read": 4}
    faults = [("write", errno.ENOSPC), ("write", errno.EIO), ("write", 0), ("sync", errno.EIO),
              ("rename", errno.EIO), ("read", errno.EIO)]
    for kind, number in faults:
        tried, at, made, most = 0, 1, 1, 0  # what fails is tried again: runs differ in their calls
        while at <= made:
            shutil.rmtree(state_folder(), ignore_errors=True)
            shutil.copytree(folder.parent / "before", state_folder())
            library.fault_arm(kinds[kind], at, number)
            book, told = opened("new")
            again, told_again = opened("new")  # this process goes on with whatever is in the store
            made = library.fault_calls()
            most = max(most, made)
            library.fault_arm(0, 0, 0)
            assert told == told_again == answer, (kind, number, at, told, told_again)
            assert bits(book.state) == bits(again.state) == bits(whole.state), (kind, number, at)
            store = StateStore(state_folder())
            assert bits(read_state(store.path(old.key), key=old.key).state) == bits(old.state), (kind, number, at)
            for path in [*state_folder().rglob("*.safetensors"), *state_folder().rglob("*.reading")]:
                read_state(path, whole=False)
            assert not [path for path in state_folder().rglob(".tmp-*")], (kind, number, at)
            assert not store.bad(), (kind, number, at)
            assert opened("new")[1] == answer
            # There are few syncs and renames: all of them.
            tried, at = tried + 1, at + (stride if kind in ("write", "read") else 1)
        print(json.dumps({"kind": kind, "error": errno.errorcode.get(number, "short"), "calls": most, "tried": tried}))
"""


def check(folder: Path, text: str, stride: int, record_property: Callable[[str, object], None]) -> None:
    library, home = folder / "failing_calls.so", folder / "home"
    assert compiler is not None
    source = Path(__file__).with_name("failing_calls.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True, timeout=60)
    home.mkdir()
    environment = {**os.environ, "LD_PRELOAD": str(library), "FAULT_FOLDER": str(home), "LONGMAMBA_HOME": str(home)}
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(READ), str(library), str(stride)],
        input=text, text=True, capture_output=True, cwd=ROOT, env=environment, timeout=12 * 3600, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    rows = [json.loads(line) for line in child.stdout.splitlines()]
    assert {row["kind"] for row in rows} == {"write", "sync", "rename", "read"}
    assert all(row["calls"] >= 3 for row in rows), rows
    for row in rows:
        record_property(f"{row['kind']} {row['error']}", f"{row['tried']} of {row['calls']} calls")


def short(story: str) -> str:
    """Long enough for several checkpoints and places."""
    middle = story.index("The access code of Zorvath")
    return story[middle - 700 : middle + 150]


def test_some_calls_fail(tmp_path: Path, story: str, record_property: Callable[[str, object], None]) -> None:
    check(tmp_path, short(story), 9, record_property)


@pytest.mark.slow
@pytest.mark.timeout(12 * 3600)
def test_every_call_fails(tmp_path: Path, story: str, record_property: Callable[[str, object], None]) -> None:
    check(tmp_path, short(story), 1, record_property)
