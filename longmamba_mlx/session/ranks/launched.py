"""`mlx.launch` as a child process: its lines, its input, its end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import IO

from longmamba_mlx.errors import NoMLXError
from longmamba_mlx.events import Event
from longmamba_mlx.session.ranks.watch import Watch

_TICK = 0.2  # seconds
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Launched:
    """`mlx.launch` as a process in its own session, so that Ctrl-C reaches only its starter."""

    def __init__(self, command: list[str]) -> None:
        self.last_words = ""
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # without an end: mlx.launch would run in circles at one
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise NoMLXError(f"`mlx.launch` cannot be started: {error.strerror}.") from None
        self._lines: SimpleQueue[tuple[bool, str]] = SimpleQueue()
        self._readers = [
            threading.Thread(target=self._read, args=(stream, is_out), daemon=True)
            for stream, is_out in ((self._process.stdout, True), (self._process.stderr, False))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def ended(self) -> bool:
        """Whether it is gone and all that it said is read."""
        return self._process.poll() is not None and self._lines.empty() and not any(
            reader.is_alive() for reader in self._readers
        )  # fmt: skip

    def next_line(self, watch: Watch) -> Event | None:
        """Wait a moment for the next line, and give it to `watch`; the event that it was, if any."""
        try:
            is_out, line = self._lines.get(timeout=_TICK)
        except Empty:
            return None
        if not is_out:
            if not watch.hear_launcher(line):
                self.last_words = _COLOUR.sub("", line).strip() or self.last_words
            return None
        before = watch.turns
        event = watch.hear(line)
        if watch.turns > before:
            self._offer_input()
        return event

    def drain(self, watch: Watch, seconds: float) -> None:
        """Read further lines for a while, or until the end."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.ended and not watch.complete:
            self.next_line(watch)

    def kill(self) -> None:
        """End it with all ranks on this machine; those elsewhere end with their connection."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _offer_input(self) -> None:
        """A byte for all ranks: they connect, or, where their input is closed, mlx.launch notices it."""
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.write(b"\n")
                self._process.stdin.flush()

    def _read(self, stream: IO[bytes], is_out: bool) -> None:
        with suppress(OSError, ValueError):  # closed by `kill`
            for line in stream:
                self._lines.put((is_out, line.decode(errors="replace")))
