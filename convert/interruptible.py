"""Work that cannot be interrupted, on a thread of its own, while somebody is told again and again how far it is."""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

T = TypeVar("T")
_TELL_SECONDS = 0.1


def attended(work: Callable[[], T], tell: Callable[[], None]) -> T:
    """What `work` returns or raises. What `tell` raises ends the waiting at once; the work is then left to itself."""
    outcome: SimpleQueue[tuple[T, None] | tuple[None, BaseException]] = SimpleQueue()

    def run() -> None:
        try:
            outcome.put((work(), None))
        except BaseException as error:  # it is the caller's
            outcome.put((None, error))

    # A daemon: a connection that says nothing must not keep the program from ending.
    Thread(target=run, name="longmamba-attended", daemon=True).start()
    while True:
        try:
            result, error = outcome.get(timeout=_TELL_SECONDS)
        except Empty:
            tell()
            continue
        if error is not None:
            raise error
        return result  # type: ignore[return-value]
