"""The thread that owns the model: jobs in through one queue, events out through another.

MLX arrays that are not evaluated cannot cross threads, so a single thread creates the session and iterates it for the
life of the program. Nothing here imports Textual or waits for the screen.

The thread never ends before the process: MLX keeps Python objects in thread-local storage, whose C++ destructors take
the GIL when a thread ends. While the interpreter is shutting down that aborts the process ("terminate called without
an active exception"), and `Thread.join` returns before those destructors have run.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeAlias

from longmamba_mlx.errors import LongMambaError, StoppedError
from longmamba_mlx.events import Event, Failed, Notice, Piece, ReadProgress
from longmamba_mlx.tui.worker.download import Fetching, FetchReport
from longmamba_mlx.tui.worker.file_stamps import Stamps, take_stamps
from longmamba_mlx.tui.worker.jobs import Ask, Forget, Job, Open, Switch, UseModel
from longmamba_mlx.tui.worker.protocol import SessionFactory, SessionLike
from longmamba_mlx.tui.worker.snapshot import Book


@dataclass(frozen=True, slots=True)
class Ended:
    """A job is over. `stopped`: it was asked to stop."""

    stopped: bool


@dataclass(frozen=True, slots=True)
class OpenDocuments:
    """The open documents; questions go to `books[current]`. Model and filter by the names the user knows."""

    books: tuple[Book, ...]
    current: int
    model: str = ""
    filter: str = ""


@dataclass(frozen=True, slots=True)
class Stamped:
    """The files about to be read, as they are on disk."""

    stamps: Stamps


EngineEvent: TypeAlias = Event | Ended | OpenDocuments | Stamped | Fetching


class Engine:
    """Runs one job at a time. Public methods are for the screen's thread."""

    def __init__(self, factory: SessionFactory) -> None:
        self._factory = factory
        self._session: SessionLike | None = None
        self._books: dict[int, tuple[object, Book]] = {}
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._events: SimpleQueue[EngineEvent] = SimpleQueue()
        self._stop = threading.Event()
        self._closing = False
        self.hint = ""
        """What can be done about the last stop, in the session's words."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name="longmamba-engine", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether jobs are served: from the first one until the end of the one that `close` stopped."""
        return self._thread.ident is not None and not self._ended.is_set()

    def submit(self, job: Job) -> None:
        """Start a job. The caller waits for `Ended` before it submits another."""
        if self._closing:
            return
        self._stop.clear()
        self.hint = ""
        if self._thread.ident is None:
            self._thread.start()
        self._jobs.put(job)

    def stop(self) -> None:
        """Ask the running job to end within a chunk or a token. Returns at once."""
        self._stop.set()
        if self._session is not None:
            self._session.stop()

    def close(self) -> None:
        """Stop the running job and accept no other. Returns at once; `join` waits for its end."""
        self._closing = True
        self.stop()
        self._jobs.put(None)

    def join(self, timeout: float) -> bool:
        """Wait for the end of the running job after `close`, at most `timeout` seconds; True when it has ended."""
        return self._thread.ident is None or self._ended.wait(timeout)

    def drain(self) -> list[EngineEvent]:
        """All events so far, oldest first."""
        events: list[EngineEvent] = []
        try:
            while True:
                events.append(self._events.get_nowait())
        except Empty:
            return events

    def _live(self) -> None:
        while (job := self._jobs.get()) is not None:
            stopped = self._run(job)
            if not isinstance(job, Ask):
                self._report_documents()
            self._events.put(Ended(stopped))
        self._ended.set()
        threading.Event().wait()  # see above: this thread ends with the process

    def _run(self, job: Job) -> bool:
        """Run a job to its end; True when it was asked to stop."""
        try:
            session = self._begin()
            for event in _events(session, job):
                self._events.put(event)
                if self._stop.is_set():
                    # A stop that came before the session began may have been cleared by it: say it again.
                    session.stop()
        except StoppedError as stop:
            self.hint = stop.hint or ""
            return True
        except LongMambaError as error:
            self._events.put(Failed(str(error), error.hint, error.exit_code))
        except Exception as error:  # a fault of the program must not end the chat
            self._events.put(_fault(error))
        return self._stop.is_set()

    def _begin(self) -> SessionLike:
        if self._session is None:
            self._session = self._factory()
            self._session.report = FetchReport(self._events.put, self._stop.is_set)
        return self._session

    def _report_documents(self) -> None:
        """Report the open documents; the snapshot of a document that stays open is reused."""
        if self._session is None:
            return
        known, self._books = self._books, {}
        for read in self._session.books:
            kept = known.get(id(read))
            self._books[id(read)] = kept if kept is not None else (read, Book.of(read))
        books = tuple(book for _, book in self._books.values())
        self._events.put(OpenDocuments(books, self._session.current, self._session.model, self._session.filter))


def _events(session: SessionLike, job: Job) -> Iterator[EngineEvent]:
    """The events of a job; the session's methods are called when iteration begins, on the engine's thread."""
    match job:
        case Open(paths):
            yield Stamped(take_stamps(paths))
            yield from session.open(paths)
        case Ask(question, how) if how.compare:
            yield from session.compare(question)
        case Ask(question, how):
            yield from session.ask(
                question, keep=how.keep, reread=how.reread, as_of=how.as_of or None, surest=how.surest
            )
        case UseModel(name, filter):
            yield from session.use_model(name, filter)
        case Switch(index):
            session.switch(index)
        case Forget():
            key = session.forget()
            title = session.books[session.current].title
            forgotten = f"Deleted the saved state of {title} is deleted; it stays open here"
            yield Notice(forgotten if key else f"There was no saved state of {title}")
        case _:
            session.reset_conversation()
            yield Notice("The next follow-up starts from the document alone")


def merge(events: list[EngineEvent]) -> list[EngineEvent]:
    """Merge the events of one frame: neighbouring pieces become one, of neighbouring progress the last stays."""
    merged: list[EngineEvent] = []
    for event in events:
        last = merged[-1] if merged else None
        if isinstance(event, Piece) and isinstance(last, Piece):
            merged[-1] = Piece(last.text + event.text)
        elif isinstance(event, ReadProgress | Fetching) and type(event) is type(last):
            merged[-1] = event
        else:
            merged.append(event)
    return merged


def _fault(error: Exception) -> Failed:
    """Report an unexpected error with the line that raised it; the chat continues without a traceback."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return Failed(f"{type(error).__name__}: {error}", f"This is a fault of the program ({place}): please report it.", 1)
