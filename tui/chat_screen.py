"""The chat: takes what is typed, gives the engine its jobs one by one, shows what it reports."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.screen import Screen
from textual.widgets import Markdown, Static, TextArea

from longmamba_mlx.errors import LongMambaError, UsageError
from longmamba_mlx.session import (
    Answered,
    Counted,
    Failed,
    Loaded,
    Loading,
    Notice,
    Piece,
    ReadDone,
    ReadProgress,
)
from longmamba_mlx.tui import commands, words
from longmamba_mlx.tui.chat_log import ChatLog
from longmamba_mlx.tui.command_hints import CommandHints
from longmamba_mlx.tui.desk import Desk, Task
from longmamba_mlx.tui.engine import Ask, Ended, Open, Report, merge
from longmamba_mlx.tui.exchange_view import ExchangeView, Stage
from longmamba_mlx.tui.help_screen import HelpScreen
from longmamba_mlx.tui.prompt import Prompt
from longmamba_mlx.tui.reading_bar import ReadingBar
from longmamba_mlx.tui.status_line import StatusLine
from longmamba_mlx.tui.title_bar import TitleBar
from longmamba_mlx.tui.transcript import to_markdown, write_new

if TYPE_CHECKING:
    from longmamba_mlx.tui.app import ChatApp

_FRAME_SECONDS = 1 / 30
_PROGRESS_SECONDS = 1 / 5


class ChatScreen(Screen[None]):
    """One conversation about what is open."""

    CSS_PATH = "chat_screen.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (60, "-normal")]  # noqa: RUF012 - Textual's own declaration
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", show=False),
        Binding("f1", "help", "Help", show=False),
    ]

    app: ChatApp  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.desk: Desk[ExchangeView] = Desk()
        self._progress: ReadProgress | None = None
        self._progress_shown = 0.0

    def compose(self) -> ComposeResult:
        yield TitleBar()
        yield ChatLog()
        yield ReadingBar()
        yield CommandHints(markup=False)
        with Horizontal(id="ask"):
            yield Static("❯", id="caret", markup=False)
            yield Prompt()
        yield StatusLine()

    def on_mount(self) -> None:
        self.prompt.focus()
        self.run_worker(self._pump(), group="reports")

    @property
    def log_view(self) -> ChatLog:
        return self.query_one(ChatLog)

    @property
    def prompt(self) -> Prompt:
        return self.query_one(Prompt)

    @property
    def status(self) -> StatusLine:
        return self.query_one(StatusLine)

    @property
    def bar(self) -> ReadingBar:
        return self.query_one(ReadingBar)

    @property
    def busy(self) -> bool:
        """Whether something runs that can be stopped."""
        return self.desk.running is not None

    # What the user does.

    @on(Prompt.Submitted)
    async def take_prompt(self, message: Prompt.Submitted) -> None:
        """A command or a question was entered."""
        self.status.flash("")
        if not message.text.startswith("/"):
            await self.ask(message.text.strip())
            return
        try:
            command, argument = commands.parse(message.text)
            pending = command.run(self, argument)
            if pending is not None:
                await pending
        except LongMambaError as error:
            await self.log_view.error(str(error), error.hint)

    @on(Prompt.Scrolled)
    def scroll_log(self, message: Prompt.Scrolled) -> None:
        """Page keys move the conversation while the prompt keeps the focus."""
        if message.pages < 0:
            self.log_view.scroll_page_up()
        else:
            self.log_view.scroll_page_down()

    @on(TextArea.Changed)
    def hint_commands(self, message: TextArea.Changed) -> None:
        """Show what a command being typed may become."""
        self.query_one(CommandHints).show(message.text_area.text)

    @on(Markdown.LinkClicked)
    def show_link(self, message: Markdown.LinkClicked) -> None:
        """A link in an answer was made up by a model: show where it leads, do not go there."""
        self.status.flash(f"Not opened: {message.href}")

    async def ask(self, question: str) -> None:
        """Show a question and put it at the end of the row."""
        view = ExchangeView(question)
        await self.log_view.add(view, follow=True)
        self.desk.add(Task(Ask(question), view))
        self._start_next()

    def open_documents(self, argument: str) -> None:
        """Read what `argument` names: one path as it stands, else several as a shell splits them."""
        paths = commands.split_paths(argument) if argument else self.desk.last_paths
        if not paths:
            raise UsageError("/open needs a file", hint="For example: /open book.txt")
        self.read(paths)

    def read(self, paths: tuple[str, ...]) -> None:
        """Put a reading into the row."""
        self.desk.add(Task(Open(paths)))
        if self.busy:
            self.status.flash("It will be opened next; Esc stops what runs now")
        self._start_next()

    def stop(self) -> None:
        """End what runs; when nothing runs take back the last queued question."""
        if self.busy:
            self.app.engine.stop()
            self.status.flash("Stopping…")
        elif (view := self.desk.withdraw()) is not None:
            if not self.prompt.text:
                self.prompt.put(view.question)
            view.remove()

    action_stop = stop

    def show_help(self) -> None:
        """Keys and commands."""
        self.app.push_screen(HelpScreen())

    action_help = show_help

    async def copy_answer(self) -> None:
        """Copy the newest answer, also while it comes."""
        for view in reversed(self.log_view.exchanges):
            if view.text.strip():
                await self.app.copy(view.text.strip())
                self.status.flash("Answer copied")
                return
        raise UsageError("There is no answer to copy yet")

    def export(self, argument: str) -> None:
        """Save all questions and answers."""
        if not argument:
            raise UsageError("/export needs a file name", hint="For example: /export notes.md")
        turns = [view.turn for view in self.log_view.exchanges if view.stage is not Stage.WAITING]
        if not turns:
            raise UsageError("There is nothing to export yet")
        path = Path(argument).expanduser()
        write_new(path, to_markdown(self.desk.document.title if self.desk.document else "", turns))
        self.status.flash(f"Saved {path}")

    async def clear(self) -> None:
        """Clear the screen; what waits or runs stays."""
        await self.log_view.clear()

    def leave(self) -> None:
        """Quit as Ctrl+Q does."""
        self.app.leave()

    # What the engine reports.

    async def _pump(self) -> None:
        while True:
            for report in merge(self.app.engine.drain()):
                await self._take(report)
            if monotonic() - self._progress_shown >= _PROGRESS_SECONDS:
                self._show_progress()
            if self.app.leaving_is_over():
                self.app.exit_now()
                return
            await asyncio.sleep(_FRAME_SECONDS)

    async def _take(self, report: Report) -> None:
        match report:
            case Piece(text):
                if view := self._asked():
                    await view.write(text)
            case Answered(answer):
                if view := self._asked():
                    await view.finish(answer)
                    self.status.answered(answer)
            case Failed(message, hint, _):
                await self._fail(message, hint)
            case Notice(text):
                await self.log_view.note(text)
            case ReadDone():
                await self._read_done(report)
            case Ended(stopped):
                await self._end(stopped)
            case _:
                self._show_reading(report)

    def _show_reading(self, report: Loading | Loaded | Counted | ReadProgress) -> None:
        if isinstance(report, ReadProgress):
            self._progress = report
            return
        self.bar.report(report)
        if isinstance(report, Counted):
            self._title(f"reading {report.title}")

    def _show_progress(self) -> None:
        """The newest numbers, a few times a second: drawing takes the interpreter away from the reading."""
        if self._progress is not None:
            self.bar.report(self._progress)
            self.status.memory(self._progress.memory)
            self._progress, self._progress_shown = None, monotonic()

    async def _read_done(self, done: ReadDone) -> None:
        self.desk.read_done(done)
        self.status.read_done(done)
        self.prompt.invite(done.title)
        self._title(done.title)
        how = "Reopened" if done.reopened else "Read"
        again = ": nothing had to be read again" if done.reopened else ""
        await self.log_view.note(
            f"{how} {done.title} · {words.count(done.tokens)} tokens in {words.duration(done.seconds)}"
            f" · the state is {words.size(done.state_bytes)}{again}"
        )

    async def _fail(self, message: str, hint: str | None) -> None:
        if view := self._asked():
            await view.fail(message, hint)
        else:
            await self.log_view.error(message, hint)

    async def _end(self, stopped: bool) -> None:
        self._show_progress()
        task, dropped = self.desk.finish()
        self.status.flash("")
        self.bar.end()
        if task is not None and task.view is not None and task.view.stage is not Stage.DONE:
            await task.view.close("stopped" if stopped else "no answer")
        if task is not None and isinstance(task.job, Open):
            if stopped:
                await self._note_stopped_reading()
            self._title(self.desk.document.title if self.desk.document else "")
        for view in dropped:
            await view.close("not asked: the document it was meant for was not read to its end")
        self._start_next()

    async def _note_stopped_reading(self) -> None:
        at = f" at {self.bar.fraction:.0%}" if self.bar.fraction else ""
        await self.log_view.note(
            f"Stopped reading {self.bar.title}{at}. /open reads it again, so does the same command later."
        )

    def _start_next(self) -> None:
        task = self.desk.start_next()
        if task is not None:
            if task.view is not None:
                task.view.begin()
            elif isinstance(task.job, Open):
                self.bar.begin(", ".join(Path(path).name for path in task.job.paths))
            self.app.engine.submit(task.job)
        self.status.busy(self.busy)
        for waiting in self.desk.waiting:
            if waiting.view is not None:
                waiting.view.wait_for(self._reason())

    def _reason(self) -> str:
        if self.desk.reading:
            return "will be asked when the document is read"
        if self.busy:
            return "will be asked after the answer above"
        return "no document is open: /open FILE (Esc takes the question back)"

    def _asked(self) -> ExchangeView | None:
        return self.desk.running.view if self.desk.running else None

    def _title(self, title: str) -> None:
        self.query_one(TitleBar).show(title)
