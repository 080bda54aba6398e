"""The thread that owns the model, for servers: work in through a bounded queue, its events out to an event loop.

MLX arrays that are not evaluated cannot cross threads, so one thread runs all work, one piece after the other. It never
ends before the process: see `tui.worker.engine`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from longmamba_mlx.errors import LongMambaError, StoppedError
from longmamba_mlx.ground.steps import Stop

Item = TypeVar("Item")


class BusyError(LongMambaError):
    """The queue is full."""


class ClosedError(LongMambaError):
    """The server is shutting down."""


@dataclass(frozen=True, slots=True)
class _End:
    """The last item of a job: how it ended."""

    error: BaseException | None = None


@dataclass(eq=False, slots=True)
class _Job:
    work: Callable[[Stop], Iterator[object]]
    loop: asyncio.AbstractEventLoop
    items: asyncio.Queue[object]
    stop: threading.Event = field(default_factory=threading.Event)

    def put(self, item: object) -> None:
        """Hand an item to the event loop, from any thread."""
        with suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self.items.put_nowait, item)


class Engine:
    """Runs pieces of work, in the order they came. At most `most_waiting` wait while one runs."""

    def __init__(self, most_waiting: int = 64) -> None:
        self._most = most_waiting
        self._jobs: deque[_Job] = deque()
        self._change = threading.Condition()
        self._running: _Job | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """How many pieces of work wait for the one that runs."""
        return len(self._jobs)

    @property
    def busy(self) -> bool:
        """Whether a piece of work is running."""
        return self._running is not None

    async def run(self, work: Callable[[Stop], Iterator[Item]]) -> AsyncGenerator[Item, None]:
        """Yield from `work(should_stop)` on the model's thread. Raises what it raises, BusyError, ClosedError.

        Leaving early, also by cancellation, stops the work. Use it with `contextlib.aclosing`.
        """
        job = _Job(work, asyncio.get_running_loop(), asyncio.Queue())
        self._submit(job)
        try:
            while not isinstance(item := await job.items.get(), _End):
                yield item  # type: ignore[misc]
            if item.error is not None:
                raise item.error
        finally:
            self._cancel(job)

    def close(self) -> None:
        """Stop the running work, drop what waits, and accept no more. Returns at once; `join` waits."""
        with self._change:
            self._closed = True
            dropped, self._jobs = self._jobs, deque()
            if self._running is not None:
                self._running.stop.set()
        for job in dropped:
            job.put(_End(_closed()))

    def join(self, seconds: float) -> bool:
        """Wait after `close` until nothing runs any more (a reading has written its checkpoint), for a time."""
        with self._change:
            return self._change.wait_for(lambda: self._running is None, seconds)

    def _submit(self, job: _Job) -> None:
        with self._change:
            if self._closed:
                raise _closed()
            if len(self._jobs) >= self._most:
                raise BusyError(
                    f"{self._most} requests are waiting already.", hint="Try again in a few seconds, or raise --queue."
                )
            self._jobs.append(job)
            self._change.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._live, name="longmamba-model", daemon=True)
                self._thread.start()

    def _cancel(self, job: _Job) -> None:
        job.stop.set()
        with self._change, suppress(ValueError):
            self._jobs.remove(job)

    def _live(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: bool(self._jobs))
                job = self._running = self._jobs.popleft()
            end = _run(job)
            with self._change:
                self._running = None
                self._change.notify_all()
            job.put(end)
            del job, end  # the next wait may be long: nothing of the work stays in memory


def _run(job: _Job) -> _End:
    if job.stop.is_set():
        return _End(StoppedError())
    try:
        for item in job.work(job.stop.is_set):
            job.put(item)
    except LongMambaError as error:
        return _End(error.with_traceback(None))  # its frames hold arrays, which stay on this thread
    except BaseException as error:  # raised again where its events are awaited; this thread serves others
        logging.getLogger(__name__).exception("The model's thread failed")
        return _End(error.with_traceback(None))
    return _End()


def _closed() -> ClosedError:
    return ClosedError("The server is shutting down.", hint="Start it again: the reading resumes there.")
