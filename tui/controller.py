"""Gives the engine its jobs one by one and shows the events they cause."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

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
from longmamba_mlx.tui.document_panel import DocumentPanel
from longmamba_mlx.tui.history.recorder import ConversationRecorder
from longmamba_mlx.tui.history.records import Exchange, Stage
from longmamba_mlx.tui.rendering import formatting
from longmamba_mlx.tui.view import ChatView
from longmamba_mlx.tui.widgets.exchange import ExchangeView
from longmamba_mlx.tui.widgets.note import Note
from longmamba_mlx.tui.widgets.start_menu import StartMenu
from longmamba_mlx.tui.worker.download import Fetching
from longmamba_mlx.tui.worker.engine import Ended, Engine, EngineEvent, OpenDocuments, merge
from longmamba_mlx.tui.worker.job_queue import JobQueue, Task
from longmamba_mlx.tui.worker.jobs import Ask, Job, Open, UseModel

STOPPED_READING, INTERRUPTED = 75, 130  # exit codes: left during a reading, which can be resumed; left by SIGINT
_CLOSE_SECONDS = 10.0
_FRAME_SECONDS = 1 / 20
_PROGRESS_SECONDS = 1 / 5
_UNASKED = "not asked: the chat was left before"
_SAME = "The same command"  # as StoppedError begins its hints


class ChatController:
    """Owns the order of work: a queue of jobs for the engine, and the conversation that comes of them."""

    def __init__(
        self,
        view: ChatView,
        engine: Engine,
        panel: DocumentPanel,
        recorder: ConversationRecorder,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._view, self._engine, self._panel, self._recorder, self._clock = view, engine, panel, recorder, clock
        self.queue: JobQueue[ExchangeView] = JobQueue()
        self.model = ""
        self._failed = False
        self._loaded = ""  # becomes `model` when the job it was loaded for is done
        self._read: dict[str, tuple[ReadDone, tuple[str, ...]]] = {}  # by digest: a document's facts and its files
        self._queued: dict[Task[ExchangeView], Note] = {}  # the note in the conversation for each waiting reading
        self._progress: ReadProgress | Fetching | None = None
        self._progress_shown = 0.0
        self._leave_by: float | None = None
        self.stopped_reading = False
        """Whether the chat was left in the middle of a reading."""
        self._exit_code = 0

    @property
    def busy(self) -> bool:
        """Whether a job runs that can be stopped."""
        return self.queue.running is not None

    # Jobs.

    async def ask(self, exchange: Exchange) -> None:
        """Show a question and queue it."""
        view = await self._view.log_view.ask(exchange)
        self.queue.add(Task(Ask(exchange.question, exchange.how), view))
        self._start_next()

    def submit(self, job: Job) -> None:
        """Queue a job; a reading that has to wait is shown in the conversation, as questions are."""
        task: Task[ExchangeView] = Task(job)
        if self.busy and isinstance(job, Open):
            files = formatting.files(job.paths)
            self._queued[task] = self._view.log_view.queue(f"queued · {files} will be read after what runs now")
        if self.busy:
            self._view.status.flash("It comes next; Esc stops what runs now")
        self.queue.add(task)
        self._start_next()

    def files_of(self, digest: str) -> tuple[str, ...]:
        """The files that an open document was read from."""
        return self._read[digest][1] if digest in self._read else ()

    def stop(self) -> bool:
        """Stop what runs; False when nothing does."""
        if not self.busy:
            return False
        self._engine.stop()
        self._view.status.flash("Stopping…")
        return True

    def leave(self, *, interrupted: bool = False) -> None:
        """Stop what runs, give it a moment to save, then quit. Called again: quit at once."""
        if self._leave_by is not None:
            self._view.quit(self._exit_code)
            return
        self.stopped_reading = self.queue.reading
        self._exit_code = INTERRUPTED if interrupted else STOPPED_READING if self.stopped_reading else 0
        self._leave_by = self._clock() + _CLOSE_SECONDS
        self._engine.close()
        self._view.status.flash("Keeping what was read… Ctrl+Q again leaves at once" if self.stopped_reading else "")

    def _leaving_is_over(self) -> bool:
        """Whether nothing is left to wait for; False when nobody asked to leave."""
        return self._leave_by is not None and (not self._engine.alive or self._clock() >= self._leave_by)

    def _start_next(self) -> None:
        task = self.queue.start_next()
        if task is not None:
            self._show_start(task)
            self._engine.submit(task.job)
        self._view.status.busy(self.busy)
        for waiting in self.queue.waiting:
            if waiting.view is not None:
                waiting.view.wait_for(self._reason())

    def _show_start(self, task: Task[ExchangeView]) -> None:
        if (note := self._queued.pop(task, None)) is not None:
            note.remove()
        if task.view is not None:
            book = self._panel.book
            task.view.exchange.book = book.digest if book else ""
            task.view.begin()
        elif isinstance(task.job, Open):
            self._view.status.forget_memory()
            self._view.log_view.query(StartMenu).remove()
            self._view.bar.begin(formatting.files(task.job.paths))
        elif isinstance(task.job, UseModel):
            self._view.bar.begin(task.job.name)

    def _reason(self) -> str:
        if self.queue.reading:
            return "will be asked when the document is read"
        if self.busy:
            return "will be asked after the answer above"
        return "no document is open: /open FILE (Esc takes the question back)"

    # Events.

    async def pump(self) -> None:
        """Show the engine's events, once a frame, until the program is left."""
        while True:
            over = self._leaving_is_over()  # asked first: the last events are still shown and kept
            for event in merge(self._engine.drain()):
                await self._take(event)
            if time.monotonic() - self._progress_shown >= _PROGRESS_SECONDS:
                self._show_progress()
            if over:
                await self._keep_unasked()
                self._view.quit(self._exit_code)
                return
            await asyncio.sleep(_FRAME_SECONDS)

    async def _keep_unasked(self) -> None:
        """Save questions that had no turn: they come back with the conversation, and in the prompt's history."""
        running = self._asked()
        begun = [running] if running is not None and running.exchange.stage is not Stage.DONE else []
        for view in [*begun, *self.queue.drop_questions()]:
            view.close("stopped" if view.exchange.text else _UNASKED)
            await self._keep(view.exchange)

    async def _keep(self, exchange: Exchange) -> None:
        """Save a finished exchange."""
        queue = self.queue
        paths = queue.paths or queue.last_paths  # one that was never asked may be about what was being read
        title = queue.document.title if queue.document else formatting.files(paths)
        await self._recorder.keep(exchange, title, paths, self.model)

    async def _take(self, event: EngineEvent) -> None:
        match event:
            case OpenDocuments():
                self._take_documents(event)
            case Ended(stopped):
                await self._end(stopped)
            case Failed(message, hint, _):
                await self._fail(message, hint)
            case Notice(text):
                await self._view.log_view.note(text)
            case ReadDone():
                await self._read_done(event)
            case Loading() | Loaded() | Counted() | ReadProgress() | Fetching():
                self._show_reading(event)
            case _:
                await self._answer(event)

    async def _answer(self, event: Event) -> None:
        view = self._asked()
        if view is None:
            return
        match event:
            case Side(name):
                self._view.bar.end()
                await view.begin_reply(name)
            case Piece(text):
                view.write(text)
            case Answered(answer):
                await view.finish(answer)
                self._view.status.answered(answer)

    def _show_reading(self, event: Loading | Loaded | Counted | ReadProgress | Fetching) -> None:
        if isinstance(event, Loaded):
            self._loaded = event.name
        if isinstance(event, ReadProgress | Fetching):
            self._progress = event
            return
        bar = self._view.bar
        if self._asked() is not None and not bar.has_class("-shown"):
            bar.begin("once more, for the comparison")
        bar.report(event)
        if isinstance(event, Counted):
            self._view.title_bar.show(f"reading {event.title}")

    def _show_progress(self) -> None:
        """Show the newest numbers, a few times a second: drawing takes the interpreter from the reading."""
        if self._progress is not None:
            self._view.bar.report(self._progress)
            if isinstance(self._progress, ReadProgress):
                self._view.status.memory(self._progress.memory)
            self._progress, self._progress_shown = None, time.monotonic()

    async def _read_done(self, done: ReadDone) -> None:
        self._show_progress()
        if self._asked() is not None:
            return  # read again only to compare
        self.queue.read_done(done)
        # Another model reads all documents again, from the files they came from.
        opened = self.queue.running is not None and isinstance(self.queue.running.job, Open)
        self._read[done.digest] = done, self.queue.paths if opened else self.files_of(done.digest)
        await self._view.log_view.note(_summary(done))
        self._facts(done)

    def _take_documents(self, documents: OpenDocuments) -> None:
        self._panel.take(documents)
        book = self._panel.book
        done, paths = self._read.get(book.digest, (None, ())) if book is not None else (None, ())
        if done is not None and self.queue.document is not done:
            self.queue.document, self.queue.paths = done, paths
            self._facts(done)
        self._name()

    def _facts(self, done: ReadDone) -> None:
        self._view.status.read_done(done)
        self._view.prompt.invite(done.title)
        self._view.title_bar.show(done.title)

    def _name(self) -> None:
        panel = self._panel
        title = self.queue.document.title if self.queue.document else ""
        place = f"{panel.current + 1} of {len(panel.books)} · " if len(panel.books) > 1 else ""
        self._view.title_bar.show(place + title)

    async def _fail(self, message: str, hint: str | None) -> None:
        self._failed = True
        if view := self._asked():
            view.fail(message, hint)
        else:
            await self._view.log_view.error(message, hint)

    async def _end(self, stopped: bool) -> None:
        self._show_progress()
        if not (stopped or self._failed) or not self.model:
            self.model = self._loaded
        self._failed = False
        if (view := self._asked()) is not None:
            if view.exchange.stage is not Stage.DONE:
                view.close("stopped" if stopped else "no answer")
            await self._keep(view.exchange)
        task, dropped = self.queue.finish()
        self._view.status.flash("")
        self._view.bar.end()
        if task is not None and stopped:
            await self._note_stop(task.job)
        self._name()
        for view in dropped:
            view.close("not asked: the document it was meant for was not read to its end")
        self._start_next()

    async def _note_stop(self, job: Job) -> None:
        bar, log = self._view.bar, self._view.log_view
        hint = self._engine.hint.replace(_SAME, "/open" if isinstance(job, Open) else "The same again")
        if isinstance(job, Open):
            at = f" at {bar.fraction:.0%}" if bar.fraction else ""
            await log.note(f"Stopped reading {bar.title}{at}. {hint}" if hint else "Stopped")
        elif isinstance(job, UseModel):
            await log.note(f"Stopped: the model is still {self.model or 'the one of before'}. {hint}".rstrip())

    def _asked(self) -> ExchangeView | None:
        return self.queue.running.view if self.queue.running else None


def _summary(done: ReadDone) -> str:
    """One line about a finished reading."""
    how = "Reopened" if done.reopened else "Read"
    if done.reopened:
        again = ": nothing had to be read again"
    else:
        again = f" · {formatting.count(done.before)} of them had been read before" if done.before else ""
    size = f"the state is {format_size(done.state_bytes)}"
    read = f"{formatting.count(done.tokens)} tokens in {formatting.duration(done.seconds)}"
    return f"{how} {done.title} · {read} · {size}{again}"
