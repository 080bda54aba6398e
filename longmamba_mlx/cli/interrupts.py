"""Graceful Ctrl-C: checkpoint a running prefill, keep a partial answer, lose no interrupt."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, shutting down, the terminal was closed


class Stoppable(Protocol):
    """Work that ends soon after `stop`."""

    def stop(self) -> None: ...


@dataclass
class Interrupts:
    """Whether a signal has arrived."""

    hit: bool = False


@contextmanager
def stopping(work: Stoppable) -> Iterator[Interrupts]:
    """Stop the work at the first signal; raise KeyboardInterrupt at the second."""
    interrupts = Interrupts()

    def handle(number: int, frame: FrameType | None) -> None:
        if interrupts.hit:
            raise KeyboardInterrupt
        interrupts.hit = True
        work.stop()

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def send_again_what_is_swallowed() -> None:
    """From now on an interrupt that meets code whose errors Python ignores (finalisers, callbacks of weak references,
    such as each import's) comes again a moment later, instead of being printed with a traceback and lost."""
    report = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            report(unraisable)
            return
        # From another thread, and later: what this function raised would be ignored as well.
        sender = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT))
        sender.daemon = True
        sender.start()

    sys.unraisablehook = hook
