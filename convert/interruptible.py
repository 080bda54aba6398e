"""Run a blocking call in a thread and poll progress meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

T = TypeVar("T")
_POLL_SECONDS = 0.1


def interruptible(work: Callable[[], T], poll: Callable[[], None]) -> T:
    """Return or raise what `work` does, calling `poll` every 0.1 s until then.

    What `poll` raises ends the waiting at once; the thread is then left to itself.
    """
    outcome: SimpleQueue[tuple[T, None] | tuple[None, BaseException]] = SimpleQueue()

    def run() -> None:
        try:
            outcome.put((work(), None))
        except BaseException as error:  # raised again in the calling thread
            outcome.put((None, error))

    # A daemon: a silent connection must not keep the program from ending.
    Thread(target=run, name="longmamba-interruptible", daemon=True).start()
    while True:
        try:
            result, error = outcome.get(timeout=_POLL_SECONDS)
        except Empty:
            poll()
            continue
        if error is not None:
            raise error
        return result  # type: ignore[return-value]
