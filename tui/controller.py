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
from longmamba_mlx.tui.document_panel import DocumentPanel
from longmamba_mlx.tui.history.recorder import ConversationRecorder
from longmamba_mlx.tui.history.records import Exchange, Stage
from longmamba_mlx.tui.reading_display import ReadingDisplay
from longmamba_mlx.tui.rendering import formatting
from longmamba_mlx.tui.view import ChatView
from longmamba_mlx.tui.widgets.exchange import ExchangeView
from longmamba_mlx.tui.widgets.note import Note
from longmamba_mlx.tui.widgets.start_menu import StartMenu
from longmamba_mlx.tui.worker.download import Fetching
from longmamba_mlx.tui.worker.engine import Ended, Engine, EngineEvent, OpenDocuments, Stamped, merge
from longmamba_mlx.tui.worker.file_stamps import Stamps
from longmamba_mlx.tui.worker.job_queue import JobQueue, Task
from longmamba_mlx.tui.worker.jobs import Ask, Job, Open, UseModel
from longmamba_mlx.tui.worker.read_documents import ReadDocuments

STOPPED_READING, INTERRUPTED = 75, 130  # exit codes: left during a reading, which can be resumed; left by SIGINT
_CLOSE_SECONDS = 10.0
_FRAME_SECONDS = 1 / 20
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
        self.filter = ""
        """The filter's name as the user chose it."""
        self._display = ReadingDisplay(view, clock)
        self._failed = False
        self._loaded = ""  # becomes `model` when the job it was loaded for is done
        self.read = ReadDocuments()
        self._stamps: Stamps = {}  # of the files of the running reading
        self._too_long: ReadProgress | None = None  # where a reading was stopped to ask for consent
        self._queued: dict[Task[ExchangeView], Note] = {}  # the note in the conversation for each waiting reading
        self._leave_by: float | None = None
        self.stopped_reading = False
        """Whether the chat was left in the middle of a reading."""
        self._exit_code = 0
        self._fresh = False  # whether a document has just been read
        self._told_changed: list[str] = []

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

    async def show(self, exchange: Exchange) -> None:
        """Show and save an exchange that needs no model."""
        exchange.stage = Stage.DONE
        exchange.book, exchange.files = self._panel.book.digest if self._panel.book else "", self.queue.paths
        await self._view.log_view.ask(exchange)
        await self._keep(exchange)

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

    def changed_files(self) -> list[str]:
        """Names of the open document's files that have changed on disk since it was read."""
        book = self._panel.book
        return [] if book is None or self.busy else self.read.changed(book.digest)

    def accept_changes(self) -> None:
        """Take the open document's files as they are now for unchanged."""
        if (book := self._panel.book) is not None:
            self.read.accept(book.digest)

    async def watch_files(self) -> None:
        """Say once when a file of the open document has changed on disk."""
        changed = self.changed_files()
        if changed and changed != self._told_changed:
            files = formatting.shorten(", ".join(changed), 60)
            await self._view.log_view.note(
                f"{files} changed on disk since the document was read · /open reads it again"
            )
        self._told_changed = changed

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
        """Whether the user asked to leave and nothing is left to wait for."""
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
            task.view.exchange.book, task.view.exchange.files = book.digest if book else "", self.queue.paths
            task.view.begin()
        elif isinstance(task.job, Open):
            self._too_long = None
            self._view.status.forget_memory()
            self._view.log_view.query(StartMenu).remove()
            self._display.begin(formatting.files(task.job.paths))
        elif isinstance(task.job, UseModel):
            self._display.begin(task.job.name)

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
            self._display.tick(for_question=self._asked() is not None)
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
            case Stamped(stamps):
                self._stamps = stamps
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
                self._display.end()
                await view.begin_reply(self._known_as(name))
            case Piece(text):
                self._display.end()
                view.write(text)
            case Answered(answer):
                await view.finish(answer)
                if not view.exchange.how.reads:
                    self._view.status.answered(answer)

    def _show_reading(self, event: Loading | Loaded | Counted | ReadProgress | Fetching) -> None:
        if isinstance(event, Loaded):
            self._loaded = event.name
        elif isinstance(event, ReadProgress):
            self._check_length(event)
        self._display.take(event, for_question=self._asked() is not None)

    def _check_length(self, progress: ReadProgress) -> None:
        """Stop a long reading that needs consent; `_end` asks."""
        job = self.queue.running.job if self.queue.running else None
        if isinstance(job, Open) and job.asks and self._too_long is None and self._display.is_long(progress):
            self._too_long = progress
            self._engine.stop()

    async def _ask_to_read(self, job: Open, progress: ReadProgress) -> None:
        """Resume a long reading when the user agrees."""
        size = f"{formatting.count(progress.total)} tokens, about {round(progress.seconds_left / 60)} min"
        files = formatting.shorten(formatting.files(job.paths), 60)
        if await self._view.confirm(f"{files}: {size}. Read all of it?", "Read", "Not now"):
            self.submit(Open(job.paths))
        else:
            await self._view.log_view.note(f"{files} was not read. /open takes single files, too")

    async def _read_done(self, done: ReadDone) -> None:
        self._display.flush(for_question=self._asked() is not None)
        if self._asked() is not None:
            return  # read again only to compare
        self.queue.read_done(done)
        # Another model reads all documents again, from the files they came from.
        opened = self.queue.running is not None and isinstance(self.queue.running.job, Open)
        if opened:
            self.read.add(done, self.queue.paths, self._stamps)
            await self._recorder.follow(done.title, self.queue.paths)
        else:
            self.read.read_again(done)
        await self._view.log_view.note(formatting.summary(done))
        self._facts(done)
        self._fresh = True

    def _take_documents(self, documents: OpenDocuments) -> None:
        self._panel.take(documents)
        book = self._panel.book
        if self._fresh and book is not None and not self._view.log_view.records:
            self._view.log_view.suggest(book.examples)
        self._fresh = False
        self.filter = documents.filter
        book = self._panel.book
        read = self.read[book.digest] if book is not None else None
        if read is not None and self.queue.document is not read.done:
            self.queue.document, self.queue.paths = read.done, read.paths
            self._facts(read.done)
        if read is not None:
            self._view.status.show_filter(self._known_as(read.done.filter))
        self._name()

    def _facts(self, done: ReadDone) -> None:
        self._view.status.read_done(done)
        self._view.prompt.invite(done.title)
        self._view.title_bar.show(done.title)

    def _known_as(self, filter: str) -> str:
        """A filter's name as the user chose it: `longmamba` where the plan knows it as `paper`."""
        return filter if filter == "off" else self.filter or filter

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
        self._display.flush(for_question=self._asked() is not None)
        if not (stopped or self._failed) or not self.model:
            self.model = self._loaded
        if self.model:
            self._view.title_bar.show_model(self.model)
        self._failed = False
        if (view := self._asked()) is not None:
            if view.exchange.stage is not Stage.DONE:
                view.close("stopped" if stopped else "no answer")
            await self._keep(view.exchange)
        task, dropped = self.queue.finish()
        self._view.status.flash("")
        self._display.end()
        if task is not None and isinstance(task.job, Open) and self._too_long is not None and stopped:
            self._view.run(self._ask_to_read(task.job, self._too_long))
        elif task is not None and stopped:
            await self._note_stop(task.job)
        self._name()
        for view in dropped:
            view.close("not asked: the document it was meant for was not read to its end")
        self._start_next()

    async def _note_stop(self, job: Job) -> None:
        bar, log = self._view.bar, self._view.log_view
        hint = self._engine.hint.replace(_SAME, "/open" if isinstance(job, Open) else "Trying again")
        if isinstance(job, Open):
            at = f" at {bar.fraction:.0%}" if bar.fraction else ""
            await log.note(f"Stopped reading {bar.title}{at}. {hint}" if hint else "Stopped")
        elif isinstance(job, UseModel):
            await log.note(f"Stopped: the model is still {self.model or 'the one of before'}. {hint}".rstrip())

    def _asked(self) -> ExchangeView | None:
        return self.queue.running.view if self.queue.running else None
