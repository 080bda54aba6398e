"""Ranks in threads of one process: their ring is made of queues.

Ranks are processes, so MLX never sees two threads at once there; here it must not either. A thread has the turn
whenever it does not wait for another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue
from typing import TypeVar

import mlx.core as mx
import numpy as np

from longmamba_mlx.inference.ranks.ring import Bytes, RankLostError, Ring

Result = TypeVar("Result")
Link = Queue[bytes | None]
"""What one rank sends to the next; None: it has failed."""

WAIT = 60.0  # seconds after which a test fails instead of hanging


class Loopback:
    """One rank's place in a ring of queues."""

    def __init__(
        self, rank: int, links: list[Link], meeting: threading.Barrier, table: list[Bytes], turn: threading.Lock
    ) -> None:
        self.rank, self.size, self.sent = rank, len(links), 0
        self._links, self._meeting, self._table, self._turn = links, meeting, table, turn

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        self._turn.release()
        try:
            yield
        finally:
            self._turn.acquire()

    def send(self, buffer: mx.array) -> None:
        self.sent += buffer.nbytes
        self._links[self.rank].put(np.array(buffer).tobytes())

    def receive(self, nbytes: int) -> mx.array:
        with self._waiting():
            found = self._links[self.rank - 1].get(timeout=WAIT)
        if found is None:
            raise RankLostError("The rank before has ended.")
        assert len(found) == nbytes
        return mx.array(np.frombuffer(found, np.uint8))

    def gather(self, record: Bytes) -> Bytes:
        self._table[self.rank] = record
        with self._waiting():
            self._meeting.wait(WAIT)
        found = np.stack(self._table)
        with self._waiting():
            self._meeting.wait(WAIT)
        return found

    def flush(self) -> None:
        pass


def run_ranks(size: int, work: Callable[[Ring], Result]) -> list[Result]:
    """What `work` returns at each rank. Raises what it raises at the first one that fails."""
    links: list[Link] = [Queue() for _ in range(size)]
    meeting, table = threading.Barrier(size), [np.zeros(0, np.uint8)] * size
    turn = threading.Lock()
    results: dict[int, Result] = {}
    errors: dict[int, BaseException] = {}

    def run(rank: int) -> None:
        turn.acquire()
        try:
            results[rank] = work(Loopback(rank, links, meeting, table, turn))
        except BaseException as error:
            errors[rank] = error
            links[rank].put(None)
            meeting.abort()
        finally:
            turn.release()

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    consequences = (threading.BrokenBarrierError, RankLostError)
    causes = [error for _, error in sorted(errors.items()) if not isinstance(error, consequences)]
    if errors:
        raise (causes or list(errors.values()))[0]
    assert all(queue.empty() for queue in links), "a message was sent that nobody took"
    return [results[rank] for rank in range(size)]
