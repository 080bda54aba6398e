"""A session that reads and answers one step at a time, as a test lets it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from longmamba_mlx.documents import Document
from longmamba_mlx.errors import StoppedError
from longmamba_mlx.events import (
    Answer,
    Answered,
    Counted,
    Event,
    Loaded,
    Loading,
    Part,
    Piece,
    ReadDone,
    ReadProgress,
    Side,
)
from longmamba_mlx.retrieval.passages import Passage
from longmamba_mlx.tokenization.offsets import Region

GATE_SECONDS = 20.0
BOOK = "\n\n".join(
    f"CHAPTER {chapter}\n\n" + "\n".join(f"Line {line} of chapter {chapter}, about the whale." for line in range(40))
    for chapter in range(1, 13)
)


@dataclass(eq=False)
class FakeBook:
    """A read document with a map of as many stretches as `kept` has."""

    document: Document
    tokens: int
    kept: Sequence[float] = ()
    known_questions: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return self.document.title

    def regions(self, count: int) -> tuple[Region, ...]:
        length, cut = len(self.document.text), len(self.kept)
        return tuple(
            Region(n * length // cut, (n + 1) * length // cut, share, self.document.place_at(n * length // cut))
            for n, share in enumerate(self.kept)
        )


@dataclass
class FakeSession:
    """Each reading chunk and each answer piece waits for a permit: `let(n)` gives n, `free()` endless."""

    title: str = "moby.txt"
    text: str = BOOK
    kept: Sequence[float] = ()
    known_questions: tuple[str, ...] = ()
    chunks: int = 4
    chunk_tokens: int = 1000
    pieces: Sequence[str] = ("It ", "is ", "Ahab.")
    answers: dict[str, Sequence[str]] = field(default_factory=dict)
    passages: tuple[Passage, ...] = ()
    found: bool = True
    not_in_text: tuple[str, ...] = ()
    part: Part | None = None
    open_error: Exception | None = None
    ask_error: Exception | None = None
    extra: tuple[Event, ...] = ()
    reopened: bool = False
    gate: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    stops: int = 0
    asked: list[str] = field(default_factory=list)
    ways: list[dict[str, object]] = field(default_factory=list)
    opened: list[tuple[str, ...]] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    saved: bool = False
    books: list[FakeBook] = field(default_factory=list)
    current: int = -1
    model: str = "demo"
    filter: str = "longmamba"
    report: object = None
    download: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _free: threading.Event = field(default_factory=threading.Event)

    def let(self, steps: int = 1) -> FakeSession:
        self.gate.release(steps)
        return self

    def free(self) -> FakeSession:
        self._free.set()
        self.gate.release()
        return self

    def hold(self) -> FakeSession:
        """From now on it takes another `let` or `free`."""
        self._free.clear()
        while self.gate.acquire(blocking=False):
            pass
        return self

    def stop(self) -> None:
        self.stops += 1
        self._stop.set()
        self.gate.release()

    def open(self, source: Sequence[str]) -> Iterator[Event]:
        self._begin()
        self.opened.append(tuple(source))
        document = Document(self.title, self.text)
        yield from self._read(self.model, document)
        book = FakeBook(document, self.chunks * self.chunk_tokens, self.kept, self.known_questions)
        digests = [other.document.digest for other in self.books]
        if document.digest in digests:
            self.current = digests.index(document.digest)
            self.books[self.current] = book
        else:
            self.books.append(book)
            self.current = len(self.books) - 1

    def _read(self, model: str, document: Document) -> Iterator[Event]:
        title = document.title
        yield Loading(model)
        yield Loaded(model, 1_340_000, 0.2)
        if self.open_error is not None:
            raise self.open_error
        total = self.chunks * self.chunk_tokens
        yield Counted(title, total)
        yield from self.extra
        for chunk in range(1, self.chunks + 1):
            if self._wait():
                self.saved = True
                raise StoppedError("stopped", hint="The same command reads it again.")
            left = (self.chunks - chunk) * self.chunk_tokens / 5214
            yield ReadProgress(chunk * self.chunk_tokens, total, 5214.0, left, 1_900_000_000, f"chapter {chunk}")
        yield ReadDone(
            title, total, total / 5214, 12_600_000, self.reopened, "0abc", self.filter, digest=document.digest
        )

    def ask(self, question: str, **way: object) -> Iterator[Event]:
        self._begin()
        self.asked.append(question)
        self.ways.append({name: value for name, value in way.items() if value})
        yield from self._answer(question)

    def compare(self, question: str) -> Iterator[Event]:
        self._begin()
        self.asked.append(question)
        self.ways.append({"compare": True})
        for name in ("off", self.filter):
            yield Side(name)
            yield from self._answer(question)
            if self._stop.is_set():
                return

    def _answer(self, question: str) -> Iterator[Event]:
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
        answer = Answer(question, text, self.found, self.passages, len(said), 0.1, reason, self.not_in_text)
        yield Answered(replace(answer, part=self.part))

    def switch(self, index: int) -> None:
        self.current = index

    def reset_conversation(self) -> None:
        self.done.append("reset")

    def forget(self) -> str | None:
        self.done.append("forget")
        return "0abc"

    def use_model(self, name: str, filter: str | None = None) -> Iterator[Event]:
        self._begin()
        for step in range(self.download):
            self._wait()
            self.report.progress(f"{name} weights", step * 10**9, self.download * 10**9)  # type: ignore[attr-defined]
        for book in self.books:
            yield from self._read(name, book.document)
        self.model, self.filter = name, filter or self.filter
        self.done.append(f"{name} {self.filter}")

    def _begin(self) -> None:
        self._stop.clear()
        self.threads.add(threading.get_ident())

    def _wait(self) -> bool:
        """Wait for a permit; True when a stop came."""
        if not self._free.is_set() and not self._stop.is_set():
            assert self.gate.acquire(timeout=GATE_SECONDS), "the test gave no permit"
        return self._stop.is_set()


@dataclass
class PacedSession(FakeSession):
    """Offers `count` words at `rate` a second; notes when each was offered and how long handing one over took."""

    rate: float = 300.0
    count: int = 600
    offered: list[float] = field(default_factory=list)
    late: float = 0.0

    def _answer(self, question: str) -> Iterator[Event]:
        self.offered.clear()
        begun = time.monotonic()
        for number in range(self.count):
            if (wait := begun + number / self.rate - time.monotonic()) > 0:
                time.sleep(wait)
            if self._stop.is_set():
                break
            self.offered.append(time.monotonic())
            yield Piece(f"w{number:05d}" + (" " if (number + 1) % 40 else "\n\n"))
            self.late = max(self.late, time.monotonic() - self.offered[-1])
        reason = "stopped" if self._stop.is_set() else "stop"
        yield Answered(Answer(question, "", True, (), len(self.offered), self.count / self.rate, reason))
