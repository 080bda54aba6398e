"""Start ranks with `mlx.launch`, report their progress, and detect a rank that ends or hangs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from longmamba_mlx.errors import LongMambaError, NoMLXError, StoppedError
from longmamba_mlx.events import Event
from longmamba_mlx.session.ranks.hosts import LOCAL, free_ports
from longmamba_mlx.session.ranks.launched import Launched
from longmamba_mlx.session.ranks.options import RankOptions
from longmamba_mlx.session.ranks.watch import Watch

_LAST_WORDS = 2.0  # seconds that the others get, to write a checkpoint, once one has failed
_STOP_SECONDS = 10.0  # the same after a stop
_AGAIN = "The same command resumes at the last checkpoint."


class Ranks:
    """A reading by several ranks on `hosts`, entries of a hostfile. Iterate `open` on one thread; `stop` is for any.

    `sent` is what all ranks together have sent, in bytes, once the reading has ended.
    """

    def __init__(self, options: RankOptions, hosts: Sequence[dict[str, Any]]) -> None:
        self.sent = 0
        self.size = len(hosts)
        self._hosts = list(hosts)
        self._local = all(host["ssh"] == LOCAL for host in hosts)
        self._options = replace(options, starter=os.getpid() if self._local else 0)
        self._stop = threading.Event()

    def stop(self) -> None:
        """End the reading; rank 0 writes a checkpoint before."""
        self._stop.set()

    def open(self, files: Sequence[str]) -> Iterator[Event]:
        """Read the files: the events of rank 0, and of the others too where documents are shared out.

        Raises StoppedError for a stop, and when a rank ends or hangs; what a rank has raised; NoMLXError when ranks
        cannot be started.
        """
        with TemporaryDirectory(prefix="longmamba-ranks-") as folder:
            hostfile = Path(folder, "hosts.json")
            hostfile.write_text(json.dumps(self._hosts))
            launched = Launched(self._command(hostfile, replace(self._options, files=tuple(files))))
            watch = Watch(self.size)
            try:
                yield from self._follow(launched, watch)
            finally:
                launched.kill()
        self.sent = sum(watch.sent.values())

    def _follow(self, launched: Launched, watch: Watch) -> Iterator[Event]:
        asked = 0.0
        while not watch.complete:
            told = launched.next_line(watch)
            if told is not None:
                yield told
            now = time.monotonic()
            if self._stop.is_set() and not asked:
                asked = now
                self._ask_to_stop(watch)
            if asked and (watch.failed or launched.ended or now - asked > _STOP_SECONDS):
                resumes = watch.failed[0].hint if 0 in watch.failed else None
                raise StoppedError("The reading was stopped.", hint=resumes or _AGAIN)
            if not asked and (hung := watch.hung(now)) is not None:
                self._end(watch, hung)
                launched.drain(watch, _LAST_WORDS)
                raise StoppedError(f"{self._name(watch, hung)} hangs: it was ended.", hint=_AGAIN)
            if not asked and (watch.is_over or launched.ended):
                launched.drain(watch, _LAST_WORDS)
                if not watch.complete:
                    raise self._error(watch, launched)

    def _command(self, hostfile: Path, options: RankOptions) -> list[str]:
        program = shutil.which("mlx.launch", path=os.path.dirname(sys.executable)) or shutil.which("mlx.launch")
        if program is None:
            raise NoMLXError("`mlx.launch` is not installed here.", hint="It comes with MLX: pip install -U mlx")
        command = [program, "--backend", "ring", "--hostfile", str(hostfile)]
        if self._local:
            command += ["--starting-port", str(free_ports(self.size))]
            threads = max(1, (os.cpu_count() or 1) // self.size)
            command += ["--env", f"OPENBLAS_NUM_THREADS={os.environ.get('OPENBLAS_NUM_THREADS', threads)}"]
        elif kernel := os.environ.get("LONGMAMBA_KERNEL"):
            command += ["--env", f"LONGMAMBA_KERNEL={kernel}"]
        return [*command, "--", sys.executable, "-m", "longmamba_mlx", "rank", options.to_json()]

    def _ask_to_stop(self, watch: Watch) -> None:
        for rank in range(self.size) if self._options.each else (0,):
            self._signal(watch, rank, signal.SIGTERM)

    def _end(self, watch: Watch, rank: int) -> None:
        self._signal(watch, rank, signal.SIGKILL)

    def _signal(self, watch: Watch, rank: int, number: signal.Signals) -> None:
        """Send a signal to a rank, if it runs on this machine."""
        hello = watch.hellos.get(rank)
        if hello is not None and hello.host == socket.gethostname():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(hello.pid, number)

    def _error(self, watch: Watch, launched: Launched) -> LongMambaError:
        """Why the ranks have ended before their work."""
        # A rank that was stopped was so by mlx.launch, because another one has ended.
        causes = [rank for rank, failed in watch.failed.items() if failed.exit_code != StoppedError.exit_code]
        if causes:
            rank = min(causes)
            failed = watch.failed[rank]
            message = failed.message if rank == 0 else f"{self._name(watch, rank)}: {failed.message}"
            error = LongMambaError(message, hint=failed.hint)
            error.exit_code = failed.exit_code
            return error
        rank, code = watch.exits[0] if watch.exits else (-1, 0)
        if code < 0:
            return StoppedError(f"{self._name(watch, rank)} was killed by signal {-code}.", hint=_AGAIN)
        if len(watch.joined) < self.size:
            missing = next(each for each in range(self.size) if each not in watch.joined) if rank < 0 else rank
            last = f" It said: {launched.last_words}" if launched.last_words else ""
            hint = "Every machine needs Python and longmamba-mlx under the same path, and ssh without a password."
            return NoMLXError(f"{self._name(watch, missing)} did not start.{last}", hint=None if self._local else hint)
        if rank < 0:
            return StoppedError("A rank has ended before its work.", hint=_AGAIN)
        return StoppedError(f"{self._name(watch, rank)} has ended with code {code}.", hint=_AGAIN)

    def _name(self, watch: Watch, rank: int) -> str:
        host = watch.hellos[rank].host if rank in watch.hellos else self._hosts[rank]["ssh"]
        return f"Rank {rank}" if self._local else f"Rank {rank} on {host}"
