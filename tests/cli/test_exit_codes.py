"""Exit codes: a command for every code; standard streams that are closed, full or odd."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from longmamba_mlx.errors import EXIT_CODES

ROOT = Path(__file__).resolve().parents[2]
QUESTION = "What is the access code of Varnok?"
TEXT = "It was late. The access code of Varnok is 40861. Nobody came."


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "story.txt"
    path.write_text(TEXT, encoding="utf-8")
    return str(path)


def shell(command: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a bash line in which $L is the program."""
    environment = {**os.environ, "L": f"{sys.executable} -m longmamba_mlx", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=120, check=False, **options,
        stdin=subprocess.DEVNULL,
    )  # type: ignore[call-overload,no-any-return]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "command"),
    [
        (0, "$L ask --file {text} '{question}'"),
        (0, "$L states ls"),
        (2, "$L ask '{question}'"),
        (2, "$L ask --file {text} ''"),
        (2, "$L ask --file {text} $'What \\xff?'"),
        (2, "printf '\\n \\n' > {text}.q; $L ask --file {text} --questions {text}.q"),
        (2, "$L ask --file {text} --nonsense"),
        (2, "$L states limit much"),
        (2, "$L read --file {text} --encoding nope"),
        (3, "$L ask --file {text} --fail-if-not-found 'What is the access code of Nobody?'"),
        (3, "$L ask --file {text} --fail-if-not-found 'Who came?'"),
        (65, "printf '' > {text}.e; $L read --file {text}.e"),
        (66, "$L read --file {text}.nope"),
        (66, "$L read --model nope --file {text}"),
        (66, "$L states import {text}.nope"),
        (74, "$L ask --file {text} '{question}' > /dev/full"),
        (74, "$L ask --file {text} '{question}' >&-"),
        (74, "$L --help > /dev/full"),
        (74, "$L states ls > /dev/full"),
    ],
)
def test_a_command_for_every_code(code: int, command: str, text: str) -> None:
    if "/dev/full" in command and not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    if "states ls >" in command:
        assert shell(f"$L read --file {text}").returncode == 0
    done = shell(command.format(text=text, question=QUESTION))
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    if code not in (0, 3):
        assert len(re.findall("^Error", done.stderr, re.MULTILINE)) == 1 or "Usage" in done.stderr, done.stderr


def test_every_code_has_a_command_or_a_test_of_its_own() -> None:
    """1: any other failure; 69: no MLX, 75 and 130: signals, tested with the sessions and below."""
    assert set(EXIT_CODES) == {0, 1, 2, 3, 65, 66, 69, 74, 75, 130}


def test_a_closed_error_stream_changes_no_answer(text: str) -> None:
    done = shell(f"$L ask --file {text} '{QUESTION}' 2>&-")
    assert (done.returncode, done.stdout) == (0, "40861\n")


def test_pipes_and_process_substitution_are_documents(text: str) -> None:
    assert shell(f"$L ask --file <(cat {text}) '{QUESTION}'").stdout == "40861\n"
    assert shell(f"cat {text} | $L ask '{QUESTION}'").stdout == "40861\n"


def test_ctrl_c_while_waiting_for_standard_input() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "longmamba_mlx", "ask", QUESTION], cwd=ROOT, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: E501
    )  # fmt: skip
    time.sleep(3)
    child.send_signal(signal.SIGINT)
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 130 and out == b"" and b"Traceback" not in err


def test_help_shows_no_types_of_python() -> None:
    for command in ("ask", "read", "chat", "states limit", "convert", "eval niah"):
        page = shell(f"$L {command} --help").stdout
        assert page and not re.search(r"<(str|int|float|path|list)|int range|TEXT", page), page
