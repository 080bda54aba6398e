"""R19: an interrupt in the first moments of a command ends it without a traceback, and leaves the store sound."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from longmamba_mlx.paths import state_folder
from longmamba_mlx.states.state_file import read_state

ROOT = Path(__file__).resolve().parents[2]
QUESTION = "What is the access code of Zorvath?"
# As the installed command begins. Before this line, and for its import of a few milliseconds, Python itself answers.
BEGUN = "import os; from longmamba_mlx.__main__ import main; os.write(1, b'.'); main()"
CODES = {0, 75, 130, -signal.SIGINT}
# Forks once for each line that `--version` passes in the files that begin and end a command, and interrupts it there.
EVERY_LINE = """
    import linecache, os, signal, sys
    from longmamba_mlx import __main__, cli
    from longmamba_mlx.cli import app
    sys.argv = ["longmamba-mlx", "--version"]
    files = {__main__.__file__, cli.__file__, signal.__file__}
    passed = 0

    def trace(frame, event, argument):
        global passed
        if frame.f_code.co_filename not in files:
            return None
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if event == "line" and line != "try:":  # where Python itself looks for no signal
            passed += 1
            if passed == number:
                os.kill(os.getpid(), signal.SIGINT)
        return trace

    reached, number = True, 0
    while reached:
        number += 1
        sys.stdout.flush()
        child = os.fork()
        if not child:
            sys.settrace(trace)
            try:
                __main__.main()
            finally:
                sys.settrace(None)
                if passed < number:
                    os._exit(99)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        reached = code != 99
        print("code", code)
"""

# A command that is interrupted while Python runs a callback of a weak reference, whose errors it ignores.
IN_A_CALLBACK = """
    import os, signal, time, weakref
    from longmamba_mlx import __main__, cli

    def run():
        thing = {1}
        kept = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
        del thing
        time.sleep(30)
        print("lost")

    cli.main = run
    __main__.main()
"""


def interrupt(file: Path, after: float) -> tuple[int, str]:
    """Start `ask` and interrupt it so many seconds after its first line -> exit code, what it said."""
    child = subprocess.Popen(
        [sys.executable, "-c", BEGUN, "ask", "--file", str(file), QUESTION],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # ignored under `nohup` or `&`
    )  # fmt: skip
    assert child.stdout is not None
    assert os.read(child.stdout.fileno(), 1) == b"."
    time.sleep(after)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode != 0 or out == b"48213\n"
    return child.returncode, err.decode()


def check(file: Path, text: str, times: int, record_property: Callable[[str, object], None]) -> None:
    file.write_text(text, encoding="utf-8")
    dice, codes = random.Random(times), Counter[int]()
    for number in range(times):
        after = 0.3 * number / times if number % 3 else dice.uniform(0.3, 1.5)
        code, err = interrupt(file, after)
        codes[code] += 1
        before = err.count('  File "') == 1 and 'File "<string>", line 1' in err  # main() had not begun
        assert before or "Traceback" not in err, f"{after:.3f} s: {err}"
        assert code in CODES, (after, code, err)
        for path in [*state_folder().glob("*/*.safetensors"), *state_folder().glob("*/*.reading")]:
            read_state(path, whole=False)
    assert any(codes[code] for code in (75, 130, -signal.SIGINT)), codes
    record_property("interrupts", times)
    record_property("exit codes", ", ".join(f"{count} times {code}" for code, count in sorted(codes.items())))


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def test_an_interrupt_is_not_lost_where_errors_are_ignored() -> None:
    done = run(IN_A_CALLBACK)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_an_interrupt_at_any_line(record_property: Callable[[str, object], None]) -> None:
    done = run(EVERY_LINE)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    codes = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("code")]
    assert codes.pop() == 99 and len(codes) > 40 and set(codes) == {130, -signal.SIGINT}, codes
    record_property("lines interrupted", len(codes))


def test_an_interrupt_at_the_start(tmp_path: Path, story: str, record_property: Callable[[str, object], None]) -> None:
    check(tmp_path / "story.txt", story, 9, record_property)


@pytest.mark.slow
@pytest.mark.timeout(12 * 3600)
def test_two_hundred_interrupts(tmp_path: Path, story: str, record_property: Callable[[str, object], None]) -> None:
    check(tmp_path / "story.txt", story, 200, record_property)
