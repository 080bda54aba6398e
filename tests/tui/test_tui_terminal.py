"""The chat in a real terminal: keys arrive, nothing of the document steers it, it is given back as it was."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

import pytest

from longmamba_mlx.tui import terminal

CHILD = Path(__file__).with_name("pty_child.py")
LIMIT_SECONDS = 30.0
ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]")


class Terminal:
    """A child process with a terminal of 100×30 of its own, and all it has written."""

    def __init__(self, mode: str, document: bytes | None = None) -> None:
        self.master, self.slave = pty.openpty()
        ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.raw = b""
        environment = {**os.environ, "TERM": "xterm-256color", "TEXTUAL_ANIMATIONS": "none"}
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), mode],
            stdin=self.slave if document is None else subprocess.PIPE,
            stdout=self.slave,
            stderr=self.slave,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: ioctl(1, termios.TIOCSCTTY, 0),
        )
        if document is not None:
            assert self.process.stdin
            self.process.stdin.write(document)
            self.process.stdin.close()

    @property
    def text(self) -> str:
        return ESCAPE.sub("", self.raw.decode(errors="replace"))

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def wait_for(self, wanted: str) -> None:
        deadline = time.monotonic() + LIMIT_SECONDS
        while wanted not in self.text:
            assert time.monotonic() < deadline, f"never came: {wanted!r} in {self.text[-2000:]!r}"
            self._read(0.2)

    def end(self) -> int:
        """Wait for the child's end; its exit code."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.text[-2000:]
            self._read(0.05)
        while self._read(0.05):
            pass
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], seconds)
        if ready:
            self.raw += os.read(self.master, 65536)
        return bool(ready)


@pytest.fixture
def start() -> Iterator[type[Terminal]]:
    started: list[Terminal] = []

    class Started(Terminal):
        def __init__(self, mode: str, document: bytes | None = None) -> None:
            super().__init__(mode, document)
            started.append(self)

    yield Started
    for each in started:
        each.close()


def given_back(terminal: Terminal) -> bool:
    """The normal screen, a visible cursor, no mouse reports, and the line settings of before."""
    for sequence in (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1000l"):
        opposite = sequence[:-1] + (b"l" if sequence.endswith(b"h") else b"h")
        if terminal.raw.rfind(sequence) < terminal.raw.rfind(opposite):
            return False
    return termios.tcgetattr(terminal.slave) == terminal.before


def test_a_question_is_answered_and_the_terminal_given_back(start: type[Terminal]) -> None:
    chat = start("plain")
    chat.wait_for("Ask about book.txt")
    chat.type("who?\r")
    chat.wait_for("Ahab.")
    chat.wait_for("7 tokens")
    chat.type("\x11")
    assert chat.end() == 0
    assert "left with 0, asked ['who?']" in chat.text
    assert given_back(chat)
    assert "PWNED" in chat.text  # as text
    assert set(re.findall(rb"\x1b\](\d+)", chat.raw)) <= {b"22"}  # the pointer's shape, from Textual
    for steering in (b"\x1b[5;5HPWNED", "\x9b".encode(), b"\x1b_", b"\x1bP"):
        assert steering not in chat.raw


def test_keys_arrive_after_the_document_came_through_standard_input(start: type[Terminal]) -> None:
    chat = start("piped", b"From a pipe\n")
    chat.wait_for("Ask about From a pipe")
    chat.type("who?\r")
    chat.wait_for("Ahab.")
    chat.type("/quit\r")
    assert chat.end() == 0 and "asked ['who?']" in chat.text and given_back(chat)


@pytest.mark.parametrize("leave", ["ctrl+c twice", "SIGTERM"])
def test_leaving_in_the_middle_of_a_reading_keeps_it(start: type[Terminal], leave: str) -> None:
    chat = start("reading")
    chat.wait_for("Reading")
    if leave == "SIGTERM":
        os.kill(chat.process.pid, signal.SIGTERM)
    else:
        chat.type("\x03")
        chat.wait_for("Stopped reading book.txt")
        chat.type("\x03")
        chat.type("\x03")
    assert chat.end() == (75 if leave == "SIGTERM" else 0)
    assert "saved True" in chat.text and given_back(chat)
    assert ("The same command reads it again" in chat.text) == (leave == "SIGTERM")


def test_without_a_terminal_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "_is_terminal", lambda descriptor: descriptor != 1)
    assert terminal.why_no_chat() == "standard output is not a terminal"
    monkeypatch.setattr(terminal, "_is_terminal", lambda descriptor: True)
    monkeypatch.setenv("TERM", "dumb")
    assert "TERM" in str(terminal.why_no_chat())
    monkeypatch.setenv("TERM", "xterm-256color")
    assert terminal.why_no_chat() is None and terminal.reattach_keyboard()


def test_a_process_without_any_terminal_gets_no_keyboard() -> None:
    code = "from longmamba_mlx.tui.terminal import reattach_keyboard; print(reattach_keyboard())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=CHILD.parents[2],
        start_new_session=True,
        check=True,
    )
    assert done.stdout == "False\n"


def test_the_chat_starts_without_mlx_and_importing_it_is_free() -> None:
    code = (
        "import sys, longmamba_mlx.tui; assert 'textual' not in sys.modules;"
        "import longmamba_mlx.tui.app; "
        "heavy = {'mlx', 'mlx_lm', 'transformers', 'torch', 'huggingface_hub', 'numpy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=CHILD.parents[2], check=True
    )
    assert done.stdout == "[]\n"
