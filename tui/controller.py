"""Gives the engine its jobs one by one and shows what it reports."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from longmamba_mlx.events import (
    Answered,
    Counted,
    Event,
    Failed,
    Loaded,
    Loading,
    Notice,
    Piece,
    ReadDone,
    ReadProgress,
    Side,
)
from longmamba_mlx.sizes import format_size
from longmamba_mlx.tui.history.records import Exchange, Stage
from longmamba_mlx.tui.rendering import formatting
from longmamba_mlx.tui.screens.start_menu import StartMenu
from longmamba_mlx.tui.widgets.exchange import ExchangeView
from longmamba_mlx.tui.widgets.note import Note
from longmamba_mlx.tui.worker.download import Fetching
from longmamba_mlx.tui.worker.engine import Ended, Report, Shelf, merge
from longmamba_mlx.tui.worker.job_queue import Desk, Task
from longmamba_mlx.tui.worker.jobs import Ask, Job, Open, UseModel

if TYPE_CHECKING:
    from longmamba_mlx.tui.chat import ChatScreen

_FRAME_SECONDS = 1 / 20
_PROGRESS_SECONDS = 1 / 5
_UNASKED = "not asked: the chat was left before"
_SAME = "The same command"  # as StoppedError begins its hints


class Conductor:
    """The order of work. Whatever it shows, it shows through the chat screen's parts."""

    def __init__(self, screen: ChatScreen) -> None:
        self._screen = screen
        self.desk: Desk[ExchangeView] = Desk()
        self.model = ""
        self._failed = False
        self._loaded = ""  # it counts when the job it was loaded for is done
        self._read: dict[str, tuple[ReadDone, tuple[str, ...]]] = {}  # by digest: a book's facts and its files
        self._queued: dict[Task[ExchangeView], Note] = {}  # what says in the talk that a reading waits
        self._progress: ReadProgress | Fetching | None = None
        self._progress_shown = 0.0

    @property
    def busy(self) -> bool:
        """Whether something runs that can be stopped."""
        return self.desk.running is not None

    # Jobs.

    async def ask(self, exchange: Exchange) -> None:
        """Show a question and put it at the end of the row."""
        view = await self._screen.log_view.ask(exchange)
        self.desk.add(Task(Ask(exchange.question, exchange.how), view))
        self._start_next()

    def submit(self, job: Job) -> None:
        """Put a job at the end of the row; a reading that has to wait is seen in the talk, as questions are."""
        task: Task[ExchangeView] = Task(job)
        if self.busy and isinstance(job, Open):
            files = formatting.files(job.paths)
            self._queued[task] = self._screen.log_view.queue(f"queued · {files} will be read after what runs now")
        if self.busy:
            self._screen.status.flash("It comes next; Esc stops what runs now")
        self.desk.add(task)
        self._start_next()

    def files_of(self, digest: str) -> tuple[str, ...]:
        """The files that a book of the shelf was read from."""
        return self._read[digest][1] if digest in self._read else ()

    def stop(self) -> bool:
        """End what runs; False when nothing does."""
        if not self.busy:
            return False
        self._screen.app.engine.stop()
        self._screen.status.flash("Stopping…")
        return True

    def _start_next(self) -> None:
        task = self.desk.start_next()
        if task is not None:
            self._show_start(task)
            self._screen.app.engine.submit(task.job)
        self._screen.status.busy(self.busy)
        for waiting in self.desk.waiting:
            if waiting.view is not None:
                waiting.view.wait_for(self._reason())

    def _show_start(self, task: Task[ExchangeView]) -> None:
        if (note := self._queued.pop(task, None)) is not None:
            note.remove()
        if task.view is not None:
            book = self._screen.library.book
            task.view.exchange.book = book.digest if book else ""
            task.view.begin()
        elif isinstance(task.job, Open):
            self._screen.status.forget_memory()
            self._screen.log_view.query(StartMenu).remove()
            self._screen.bar.begin(formatting.files(task.job.paths))
        elif isinstance(task.job, UseModel):
            self._screen.bar.begin(task.job.name)

    def _reason(self) -> str:
        if self.desk.reading:
            return "will be asked when the document is read"
        if self.busy:
            return "will be asked after the answer above"
        return "no document is open: /open FILE (Esc takes the question back)"

    # Reports.

    async def pump(self) -> None:
        """Show what the engine reports, once a frame, until the program is left."""
        while True:
            over = self._screen.app.leaving_is_over()  # asked first: what the engine said last is still shown and kept
            for report in merge(self._screen.app.engine.drain()):
                await self._take(report)
            if monotonic() - self._progress_shown >= _PROGRESS_SECONDS:
                self._show_progress()
            if over:
                await self._keep_unasked()
                self._screen.app.exit_now()
                return
            await asyncio.sleep(_FRAME_SECONDS)

    async def _keep_unasked(self) -> None:
        """Questions that nobody got to are kept: they come back with the talk, and in the prompt's history."""
        running = self._asked()
        begun = [running] if running is not None and running.exchange.stage is not Stage.DONE else []
        for view in [*begun, *self.desk.drop_questions()]:
            view.close("stopped" if view.exchange.text else _UNASKED)
            await self._screen.keep(view.exchange)

    async def _take(self, report: Report) -> None:
        match report:
            case Shelf():
                self._shelf(report)
            case Ended(stopped):
                await self._end(stopped)
            case Failed(message, hint, _):
                await self._fail(message, hint)
            case Notice(text):
                await self._screen.log_view.note(text)
            case ReadDone():
                await self._read_done(report)
            case Loading() | Loaded() | Counted() | ReadProgress() | Fetching():
                self._show_reading(report)
            case _:
                await self._answer(report)

    async def _answer(self, report: Event) -> None:
        view = self._asked()
        if view is None:
            return
        match report:
            case Side(name):
                self._screen.bar.end()
                await view.begin_reply(name)
            case Piece(text):
                view.write(text)
            case Answered(answer):
                await view.finish(answer)
                self._screen.status.answered(answer)

    def _show_reading(self, report: Loading | Loaded | Counted | ReadProgress | Fetching) -> None:
        if isinstance(report, Loaded):
            self._loaded = report.name
        if isinstance(report, ReadProgress | Fetching):
            self._progress = report
            return
        bar = self._screen.bar
        if self._asked() is not None and not bar.has_class("-shown"):
            bar.begin("once more, for the comparison")
        bar.report(report)
        if isinstance(report, Counted):
            self._screen.title_bar.show(f"reading {report.title}")

    def _show_progress(self) -> None:
        """The newest numbers, a few times a second: drawing takes the interpreter away from the reading."""
        if self._progress is not None:
            self._screen.bar.report(self._progress)
            if isinstance(self._progress, ReadProgress):
                self._screen.status.memory(self._progress.memory)
            self._progress, self._progress_shown = None, monotonic()

    async def _read_done(self, done: ReadDone) -> None:
        self._show_progress()
        if self._asked() is not None:
            return  # read again only to compare
        self.desk.read_done(done)
        # Another model reads all books again, from the files they came from.
        opened = self.desk.running is not None and isinstance(self.desk.running.job, Open)
        self._read[done.digest] = done, self.desk.paths if opened else self.files_of(done.digest)
        await self._screen.log_view.note(_summary(done))
        self._facts(done)

    def _shelf(self, shelf: Shelf) -> None:
        self._screen.library.take(shelf)
        book = self._screen.library.book
        done, paths = self._read.get(book.digest, (None, ())) if book is not None else (None, ())
        if done is not None and self.desk.document is not done:
            self.desk.document, self.desk.paths = done, paths
            self._facts(done)
        self._name()

    def _facts(self, done: ReadDone) -> None:
        self._screen.status.read_done(done)
        self._screen.prompt.invite(done.title)
        self._screen.title_bar.show(done.title)

    def _name(self) -> None:
        library = self._screen.library
        title = self.desk.document.title if self.desk.document else ""
        place = f"{library.current + 1} of {len(library.books)} · " if len(library.books) > 1 else ""
        self._screen.title_bar.show(place + title)

    async def _fail(self, message: str, hint: str | None) -> None:
        self._failed = True
        if view := self._asked():
            view.fail(message, hint)
        else:
            await self._screen.log_view.error(message, hint)

    async def _end(self, stopped: bool) -> None:
        self._show_progress()
        if not (stopped or self._failed) or not self.model:
            self.model = self._loaded
        self._failed = False
        if (view := self._asked()) is not None:
            if view.exchange.stage is not Stage.DONE:
                view.close("stopped" if stopped else "no answer")
            await self._screen.keep(view.exchange)
        task, dropped = self.desk.finish()
        self._screen.status.flash("")
        self._screen.bar.end()
        if task is not None and stopped:
            await self._note_stop(task.job)
        self._name()
        for view in dropped:
            view.close("not asked: the document it was meant for was not read to its end")
        self._start_next()

    async def _note_stop(self, job: Job) -> None:
        bar, log = self._screen.bar, self._screen.log_view
        hint = self._screen.app.engine.hint.replace(_SAME, "/open" if isinstance(job, Open) else "The same again")
        if isinstance(job, Open):
            at = f" at {bar.fraction:.0%}" if bar.fraction else ""
            await log.note(f"Stopped reading {bar.title}{at}. {hint}" if hint else "Stopped")
        elif isinstance(job, UseModel):
            await log.note(f"Stopped: the model is still {self.model or 'the one of before'}. {hint}".rstrip())

    def _asked(self) -> ExchangeView | None:
        return self.desk.running.view if self.desk.running else None


def _summary(done: ReadDone) -> str:
    """One line about a reading that has come to its end."""
    how = "Reopened" if done.reopened else "Read"
    if done.reopened:
        again = ": nothing had to be read again"
    else:
        again = f" · {formatting.count(done.before)} of them had been read before" if done.before else ""
    size = f"the state is {format_size(done.state_bytes)}"
    read = f"{formatting.count(done.tokens)} tokens in {formatting.duration(done.seconds)}"
    return f"{how} {done.title} · {read} · {size}{again}"
