"""A terminal without a window: runs a program, types, and knows what was written to it and when."""

from __future__ import annotations

import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from fcntl import ioctl
from pathlib import Path

LIMIT_SECONDS = 30.0
ROOT = Path(__file__).resolve().parents[2]
ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]")


def _without_size(environment: Mapping[str, str]) -> dict[str, str]:
    """Test runners that use several processes export a size, which programs believe more than the terminal."""
    return {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}


class Terminal:
    """A child process with a terminal of its own, and all it has written since `forget`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        size: tuple[int, int] = (100, 30),
        document: bytes | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(*size)
        self.before = termios.tcgetattr(self.slave)
        self.raw = b""
        self.reads: list[tuple[float, bytes]] = []  # when (time.monotonic) and what
        calm = {"TERM": "xterm-256color", "TEXTUAL_ANIMATIONS": "none"}
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            command,
            stdin=self.slave if document is None else subprocess.PIPE,
            stdout=self.slave,
            stderr=self.slave,
            env={**_without_size(os.environ), **calm, **(environment or {})},
            cwd=ROOT,
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

    def resize(self, columns: int, rows: int) -> None:
        ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def forget(self, quiet: float = 0.05) -> None:
        """Wait until nothing was written for `quiet` seconds; only what is written from then on counts."""
        while self.read(quiet):
            pass
        self.raw = b""
        self.reads.clear()

    def type(self, keys: str) -> float:
        """Press keys; when that was."""
        now = time.monotonic()
        os.write(self.master, keys.encode())
        return now

    def type_until(self, key: str, wanted: str) -> None:
        """Press a key again and again: the focus may still be on its way."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while wanted not in self.text:
            assert time.monotonic() < deadline, f"never came: {wanted!r} in {self.text[-2000:]!r}"
            self.type(key)
            self.read(0.5)

    def wait_for(self, wanted: str, seconds: float = LIMIT_SECONDS) -> float:
        """Until this stands in what was written; when it came."""
        deadline = time.monotonic() + seconds
        while wanted not in self.text:
            assert time.monotonic() < deadline, f"never came: {wanted!r} in {self.text[-2000:]!r}"
            self.read(0.2)
        return self.reads[-1][0] if self.reads else time.monotonic()

    def end(self) -> int:
        """Wait for the child's end; its exit code."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.text[-2000:]
            self.read(0.05)
        while self.read(0.05):
            pass
        return self.process.returncode

    def hang_up(self) -> None:
        """The window is closed, or the connection is lost."""
        for end in (self.master, self.slave):
            os.close(end)
        self.master = self.slave = -1

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.master >= 0:
            self.hang_up()

    def read(self, seconds: float) -> bool:
        """Take in what is written within so many seconds; False when nothing was."""
        ready, _, _ = select.select([self.master], [], [], seconds)
        if ready:
            data = os.read(self.master, 65536)
            self.raw += data
            self.reads.append((time.monotonic(), data))
        return bool(ready)
