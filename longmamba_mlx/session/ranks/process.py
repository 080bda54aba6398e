"""A rank as a process: send heartbeats, join the ring, read, and report progress.

MLX is imported after the first line is sent: on a busy machine the import takes seconds.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress

from longmamba_mlx.errors import LongMambaError
from longmamba_mlx.events import Event, Failed, ReadProgress
from longmamba_mlx.session.ranks.lines import Beat, Ended, Hello, Joined, Lost, Ready, Told, to_line
from longmamba_mlx.session.ranks.options import RankOptions

BEAT_EVERY = 1.0  # seconds
_PROGRESS_EVERY = 0.2  # seconds


def run_rank(options_json: str, version: str) -> int:
    """Be one of the ranks that `mlx.launch` has started -> the exit code. `version`: of this program."""
    voice = _Voice(int(os.environ.get("MLX_RANK", "0")))
    voice.say(Hello(socket.gethostname(), os.getpid()))
    voice.beat()
    stop = threading.Event()
    if voice.rank == 0:  # the others are just ended
        signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    try:
        options = RankOptions.from_json(options_json)
        voice.starter = options.starter
        return _run(options, version, voice, stop)
    except LongMambaError as error:
        from longmamba_mlx.inference.ranks.ring import RankLostError

        lost = isinstance(error, RankLostError)
        voice.say(Lost() if lost else Failed(str(error), error.hint, error.exit_code))
        return error.exit_code
    except Exception as error:  # the starting process shows one line; the traceback is for its --verbose reader
        voice.say(Failed(f"A rank failed: {type(error).__name__}: {error}", None, LongMambaError.exit_code))
        return LongMambaError.exit_code


def _run(options: RankOptions, version: str, voice: _Voice, stop: threading.Event) -> int:
    import mlx.core as mx
    import numpy as np

    from longmamba_mlx.inference.ranks.ring import MLXRing
    from longmamba_mlx.session.api import load
    from longmamba_mlx.session.ranks.reading import read_together
    from longmamba_mlx.session.ranks.sharing import read_shares
    from longmamba_mlx.session.sources import text_of

    voice.say(Ready())
    _take_turn()
    ring = MLXRing()
    voice.say(Joined())
    model = load(options.model, filter=options.filter, attention_window=options.attention_window,
                 offline=options.offline)  # fmt: skip
    versions = f"{version} {mx.__version__} {np.__version__}"  # type: ignore[attr-defined]
    if options.each:
        events: Iterable[Event] = read_shares(model, options.files, ring, versions, chunk=options.chunk,
                                              encoding=options.encoding, should_stop=stop.is_set)  # fmt: skip
    else:
        document = text_of(options.files, hold_text=False, encoding=options.encoding, should_stop=stop.is_set)
        events = read_together(model, document, ring, versions, chunk=options.chunk, should_stop=stop.is_set)
    voice.retell(events)
    ring.gather(np.zeros(1, np.uint8))  # nobody leaves before all are done: a closed connection fails its neighbour
    voice.say(Ended(ring.sent))
    return 0


def _take_turn() -> None:
    """Wait until all ranks are there: MLX connects them without letting another thread say that this one lives.

    Then close the input: mlx.launch offers it in a busy loop until it is refused.
    """
    os.read(0, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


class _Voice:
    """Writes lines to the original standard output; anything else printed goes to standard error."""

    def __init__(self, rank: int) -> None:
        self.rank, self.starter = rank, 0
        self._out = os.dup(1)
        os.dup2(2, 1)

    def say(self, told: Told) -> None:
        """Write a line in one piece. The process ends when its reader is gone."""
        try:
            os.write(self._out, to_line(self.rank, told).encode())
        except OSError:
            os._exit(LongMambaError.exit_code)

    def beat(self) -> None:
        """Say every second that this process lives; end it when `starter` is gone."""

        def beating() -> None:
            while True:
                self.say(Beat())
                time.sleep(BEAT_EVERY)
                if self.starter and not _lives(self.starter):
                    os._exit(LongMambaError.exit_code)

        threading.Thread(target=beating, daemon=True).start()

    def retell(self, events: Iterable[Event]) -> None:
        """Say all events, progress a few times a second."""
        told = 0.0
        for event in events:
            now = time.monotonic()
            if isinstance(event, ReadProgress):
                if now - told < _PROGRESS_EVERY:
                    continue
                told = now
            self.say(event)


def _lives(process: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True
