"""A session that reads and answers one step at a time, as a test lets it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from longmamba_mlx.errors import StoppedError
from longmamba_mlx.passages import Passage
from longmamba_mlx.session import (
    Answer,
    Answered,
    Counted,
    Event,
    Loaded,
    Loading,
    Piece,
    ReadDone,
    ReadProgress,
)

GATE_SECONDS = 20.0


@dataclass
class FakeSession:
    """Each reading chunk and each answer piece waits for a permit: `let(n)` gives n, `free()` endless."""

    title: str = "moby.txt"
    chunks: int = 4
    chunk_tokens: int = 1000
    pieces: Sequence[str] = ("It ", "is ", "Ahab.")
    answers: dict[str, Sequence[str]] = field(default_factory=dict)
    passages: tuple[Passage, ...] = ()
    found: bool = True
    open_error: Exception | None = None
    ask_error: Exception | None = None
    extra: tuple[Event, ...] = ()
    reopened: bool = False
    gate: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    stops: int = 0
    asked: list[str] = field(default_factory=list)
    opened: list[tuple[str, ...]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    saved: bool = False
    _stop: threading.Event = field(default_factory=threading.Event)
    _free: threading.Event = field(default_factory=threading.Event)

    def let(self, steps: int = 1) -> FakeSession:
        self.gate.release(steps)
        return self

    def free(self) -> FakeSession:
        self._free.set()
        self.gate.release()
        return self

    def stop(self) -> None:
        self.stops += 1
        self._stop.set()
        self.gate.release()

    def open(self, paths: Sequence[str]) -> Iterator[Event]:
        self._begin()
        self.opened.append(tuple(paths))
        yield Loading("demo")
        yield Loaded("demo", 1_340_000, 0.2)
        if self.open_error is not None:
            raise self.open_error
        total = self.chunks * self.chunk_tokens
        yield Counted(self.title, total)
        yield from self.extra
        for chunk in range(1, self.chunks + 1):
            if self._wait():
                self.saved = True
                raise StoppedError("stopped", hint="The same command reads it again.")
            left = (self.chunks - chunk) * self.chunk_tokens / 5214
            yield ReadProgress(chunk * self.chunk_tokens, total, 5214.0, left, 1_900_000_000)
        yield ReadDone(self.title, total, total / 5214, 12_600_000, self.reopened, "0abc", "longmamba")

    def ask(self, question: str) -> Iterator[Event]:
        self._begin()
        self.asked.append(question)
        said: list[str] = []
        reason = "stop"
        for piece in self.answers.get(question, self.pieces):
            if self._wait():
                reason = "stopped"
                break
            said.append(piece)
            yield Piece(piece)
        if self.ask_error is not None:
            raise self.ask_error
        text = "".join(said)
        yield Answered(Answer(question, text, self.found, self.passages, len(said), 0.1, reason))

    def _begin(self) -> None:
        self._stop.clear()
        self.threads.add(threading.get_ident())

    def _wait(self) -> bool:
        """Wait for a permit; True when a stop came."""
        if not self._free.is_set() and not self._stop.is_set():
            assert self.gate.acquire(timeout=GATE_SECONDS), "the test gave no permit"
        return self._stop.is_set()
