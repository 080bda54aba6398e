"""How far a reading is, in tokens of its document, and how fast it goes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from longmamba_mlx.errors import StoppedError
from longmamba_mlx.ground.steps import Stop
from longmamba_mlx.system import resident_bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` tokens after `seconds`, `before` of them in an earlier run; resident `memory` in bytes."""

    done: int
    total: int
    seconds: float
    memory: int
    before: int = 0

    @property
    def tokens_per_second(self) -> float:
        return (self.done - self.before) / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float:
        now = self.done - self.before
        return self.seconds * (self.total - self.done) / now if now else float("inf")


class Clock:
    """The progress of a reading of `total` tokens, the first `before` of them read earlier."""

    def __init__(self, total: int, *, before: int = 0, should_stop: Stop | None = None) -> None:
        self._total, self._before, self._should_stop = total, before, should_stop
        self._started = time.monotonic()
        self.begin(before, total, total - before)

    def begin(self, first: int, stop: int, work: int) -> None:
        """Start on the tokens from `first` to before `stop`: they are read once `work` is done, in any unit."""
        self._first, self._stop, self._work, self._done = first, stop, max(work, 1), 0

    def advance(self, work: int) -> Progress:
        """So much more work is done. Raises StoppedError, unless nothing is left to stop."""
        self._done += work
        done = self._first + (self._stop - self._first) * self._done // self._work
        if self._should_stop is not None and done < self._total and self._should_stop():
            raise StoppedError
        return self.at(done)

    def at(self, done: int) -> Progress:
        """The progress once `done` tokens are read."""
        return Progress(done, self._total, time.monotonic() - self._started, resident_bytes(), self._before)
