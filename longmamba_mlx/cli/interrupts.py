"""Ctrl-C ends what is going on in order: a reading with a checkpoint, an answer with what is there of it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from longmamba_mlx.session.session import Session

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, shutting down, the terminal was closed


@dataclass
class Interrupts:
    """Whether there was one."""

    hit: bool = False


@contextmanager
def stopping(session: Session) -> Iterator[Interrupts]:
    """The first signal stops the session, a second one interrupts whatever runs."""
    interrupts = Interrupts()

    def handle(number: int, frame: FrameType | None) -> None:
        if interrupts.hit:
            raise KeyboardInterrupt
        interrupts.hit = True
        session.stop()

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
