"""Parse untrusted formats in a sandboxed child process: limited memory and CPU time, no files, no sockets."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from typing import IO

from longmamba_mlx.documents.formats import wire
from longmamba_mlx.documents.formats.builder import Parsed, Refused
from longmamba_mlx.documents.formats.limits import memory_for
from longmamba_mlx.errors import StoppedError
from longmamba_mlx.ground.steps import Stop
from longmamba_mlx.system import resident_bytes

_SECONDS = 3.0  # of computing, for any file
# And more per megabyte. Measured: 0.2 s for a book in HTML, 0.3 s in DOCX, 1.1 s in PDF.
_SECONDS_PER_MEGABYTE, _SECONDS_PER_PDF_MEGABYTE = 1.0, 5.0
_PATIENCE = 8.0  # times as long on the clock: others may be at work on this machine
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_BLOCK = 1 << 20
_LOOK = 0.05  # seconds between two checks of its limits and of `should_stop`


def parse(kind: str, file: IO[bytes], should_stop: Stop | None = None, encoding: str = "") -> Parsed:
    """Parse an open file in a child process, with the module of `formats/` named `kind`; return its text and places.

    `encoding` is the user's choice. Raises Refused, however the child fails; StoppedError once `should_stop()`.
    """
    size = os.fstat(file.fileno()).st_size
    seconds = _SECONDS + size / (1 << 20) * (_SECONDS_PER_PDF_MEGABYTE if kind == "pdf" else _SECONDS_PER_MEGABYTE)
    file.seek(0)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "longmamba_mlx.documents.formats.worker", kind, str(math.ceil(seconds)), encoding],
        stdin=file,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_environment(),
        start_new_session=True,  # Ctrl-C is for us; we end the child
    )
    watch = _Watch(process, _PATIENCE * seconds, memory_for(size), should_stop)
    try:
        data = _answer(process)
        process.wait()
    finally:
        watch.end()
    if watch.stopped:
        raise StoppedError
    if watch.reason:
        raise Refused(watch.reason)
    try:
        return wire.read(data)
    except wire.WireError:
        code = "time" if process.returncode == -signal.SIGXCPU else "crash"
        raise Refused(code) from None


def _environment() -> dict[str, str]:
    """Environment of the child: this process's import path, without tokens and keys."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return kept | {"PYTHONPATH": os.pathsep.join(path for path in map(os.path.abspath, sys.path) if path)}


def _answer(process: subprocess.Popen[bytes]) -> bytes:
    """Read the child's output to its end; kill the child when it exceeds the limit."""
    assert process.stdout is not None  # noqa: S101 - stdout=PIPE, for the type checker
    blocks, total = [], 0
    with process.stdout as pipe:
        while block := pipe.read1(_BLOCK):  # type: ignore[attr-defined]
            total += len(block)
            if total > wire.MOST_BYTES:
                process.kill()
                return b""
            blocks.append(block)
    return b"".join(blocks)


class _Watch:
    """Kill the child when its answer is no longer wanted, when its time is up or, where the system does not, when it
    uses too much memory."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float, memory: int, should_stop: Stop | None) -> None:
        self.reason, self.stopped = "", False
        self._should_stop = should_stop
        self._process, self._deadline, self._memory = process, time.monotonic() + seconds, memory
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop watching, and kill the child if it still runs."""
        self._over.set()
        self._thread.join()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _look(self) -> None:
        while not self._over.wait(_LOOK):
            if self._should_stop is not None and self._should_stop():
                self.stopped = True
            elif time.monotonic() > self._deadline:
                self.reason = "time"
            elif sys.platform == "darwin" and resident_bytes(self._process.pid) > self._memory:
                self.reason = "memory"
            if self.reason or self.stopped:
                self._process.kill()
                return
