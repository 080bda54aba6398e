"""The ring of ranks: each sends to the next, the last to the first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import LongMambaError, NoMLXError

Bytes = NDArray[np.uint8]

_GONE = "The connection to another rank was lost."
_MARK = np.frombuffer(b"longmamba-record", np.uint8)


class RankLostError(LongMambaError):
    """A neighbour in the ring has ended."""


class Ring(Protocol):
    """One rank's place in the ring. Raises RankLostError where a neighbour is gone."""

    rank: int
    size: int
    sent: int
    """Bytes given to the next rank so far."""

    def send(self, buffer: mx.array) -> None:
        """Start sending buffer (n,) uint8 to the next rank."""

    def receive(self, nbytes: int) -> mx.array:
        """Wait for the next buffer (n,) uint8 of the rank before, which has this size."""

    def gather(self, record: Bytes) -> Bytes:
        """The records (n,) of all ranks, of equal size: (size, n)."""

    def flush(self) -> None:
        """Wait until everything is sent."""


class MLXRing:
    """The ring of `mx.distributed`, over TCP: what `mlx.launch --backend ring` starts."""

    def __init__(self) -> None:
        """Join the ring that MLX_HOSTFILE and MLX_RANK describe. Raises NoMLXError."""
        try:
            self._group: Any = mx.distributed.init(strict=True, backend="ring")
        except (RuntimeError, ValueError) as error:
            hint = "Look at the addresses in the hostfile."
            raise NoMLXError(f"The ranks cannot connect: {error}", hint=hint) from None
        self.rank, self.size, self.sent = self._group.rank(), self._group.size(), 0
        # Streams of their own: a send does not keep the layers waiting, nor the next receive.
        self._out, self._in = mx.new_stream(mx.cpu), mx.new_stream(mx.cpu)
        self._last: mx.array | None = None

    def send(self, buffer: mx.array) -> None:
        mx.eval(buffer)
        self.sent += buffer.nbytes
        next_rank = (self.rank + 1) % self.size
        with _lost():
            self._last = mx.distributed.send(buffer, next_rank, group=self._group, stream=self._out)
            mx.async_eval(self._last)  # type: ignore[no-untyped-call]

    def receive(self, nbytes: int) -> mx.array:
        # Not asked for ahead of time: MLX waits for a socket in a busy loop, on a core that the layers could have.
        before = (self.rank - 1) % self.size
        with _lost():
            array = mx.distributed.recv((nbytes,), mx.uint8, before, group=self._group, stream=self._in)
            mx.eval(array)
        return array

    def gather(self, record: Bytes) -> Bytes:
        own = np.concatenate([_MARK, record, _MARK])
        with _lost():
            gathered = mx.distributed.all_gather(mx.array(own)[None], group=self._group, stream=mx.cpu)
            table = np.array(gathered)
        # A lost connection is no error to all_gather: it leaves rows as they were.
        mark = len(_MARK)
        if not ((table[:, :mark] == _MARK).all() and (table[:, -mark:] == _MARK).all()):
            raise RankLostError(_GONE)
        return table[:, mark:-mark]

    def flush(self) -> None:
        if self._last is not None:
            with _lost():
                mx.eval(self._last)


@contextmanager
def _lost() -> Iterator[None]:
    """MLX's error for a closed connection as RankLostError."""
    try:
        yield
    except RuntimeError as error:
        if "[ring]" not in str(error):
            raise
        raise RankLostError(_GONE) from None
