"""The chat: its parts, its keys, and who is told about what is typed, clicked and chosen."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.reactive import var
from textual.screen import Screen
from textual.widgets import Static, TextArea

from longmamba_mlx.errors import LongMambaError
from longmamba_mlx.tui import commands
from longmamba_mlx.tui.actions import Actions
from longmamba_mlx.tui.controller import Conductor
from longmamba_mlx.tui.document_panel import Library
from longmamba_mlx.tui.history.recorder import Diary
from longmamba_mlx.tui.history.records import Exchange
from longmamba_mlx.tui.history.store import Talk
from longmamba_mlx.tui.rendering import formatting
from longmamba_mlx.tui.rendering.flat_containers import GroundHorizontal
from longmamba_mlx.tui.screens.start_menu import StartMenu
from longmamba_mlx.tui.widgets.chat_log import ChatLog
from longmamba_mlx.tui.widgets.hints import CommandHints
from longmamba_mlx.tui.widgets.memory_map import MemoryMap
from longmamba_mlx.tui.widgets.passage import PassageView
from longmamba_mlx.tui.widgets.prompt import Prompt
from longmamba_mlx.tui.widgets.reader import Reader
from longmamba_mlx.tui.widgets.reading_bar import ReadingBar
from longmamba_mlx.tui.widgets.status_line import StatusLine
from longmamba_mlx.tui.widgets.text_pane import TextPane
from longmamba_mlx.tui.widgets.title_bar import TitleBar

if TYPE_CHECKING:
    from longmamba_mlx.tui.app import ChatApp


class ChatScreen(Screen[None]):
    """One conversation about what is open."""

    AUTO_FOCUS = "Prompt"  # keys pressed before the first frame are for the prompt, not for the first thing in sight
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", show=False),
        Binding("f1", "help", "Help", show=False),
        Binding("f2", "command('text')", "The text", show=False),
        Binding("f3", "command('map')", "The memory map", show=False),
        Binding("f4", "command('sessions')", "Earlier talks", show=False),
        Binding("ctrl+r", "resume", "Go on with the last talk", show=False),
    ]

    app: ChatApp  # type: ignore[assignment]
    diary: Diary
    keeping: var[bool] = var(False, init=False)  # whether every question goes on from the talk

    def __init__(self) -> None:
        super().__init__()
        self.conductor = Conductor(self)
        self.library = Library(self)
        self.actions = Actions(self)

    def compose(self) -> ComposeResult:
        yield TitleBar()
        yield MemoryMap()
        with GroundHorizontal(id="body"):
            yield ChatLog()
            yield Reader()
        yield ReadingBar()
        yield CommandHints(markup=False)
        with Horizontal(id="ask"):
            yield Static("❯", id="caret", markup=False)
            yield Prompt()
        yield StatusLine()

    async def on_mount(self) -> None:
        self.diary = Diary(self.app.store, self.log_view)
        self.run_worker(self.conductor.pump(), group="reports")

    async def greet(self, paths: tuple[str, ...]) -> None:
        """After the first frame: read what was named, or offer what there is to do."""
        if paths:
            self.actions.read(paths)
        for question in await self.diary.questions():
            self.prompt.asked.add(question)
        if not paths:
            menu = StartMenu(await self.diary.talks(limit=5))
            await self.log_view.offer(menu)
            if not self.prompt.text:
                menu.focus()
        elif (talk := await self.diary.latest_about(paths)) is not None:
            asked = formatting.many(talk.exchanges, "question")
            await self.log_view.note(f"You asked {asked} of this before: Ctrl+R goes on with that talk")

    # Its parts.

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
    def title_bar(self) -> TitleBar:
        return self.query_one(TitleBar)

    @property
    def paths(self) -> tuple[str, ...]:
        """The files of the document that is open; () when it is not known which they are."""
        return self.conductor.desk.paths

    # What is typed.

    @on(Prompt.Submitted)
    async def take_prompt(self, message: Prompt.Submitted) -> None:
        """A command or a question was entered."""
        self.status.flash("")
        if message.text.startswith("/"):
            self.command(message.text)
        else:
            self.library.give_way()
            await self.actions.ask(message.text.strip())

    def command(self, line: str) -> None:
        """Do what a line that begins with / says."""
        self._attempt(self._command(line))

    async def _command(self, line: str) -> None:
        command, argument = commands.parse(line)
        if not command.shows_text:
            self.library.give_way()
        pending = command.run(self.actions, argument)
        if inspect.isawaitable(pending):
            await pending

    def _attempt(self, work: Awaitable[None]) -> None:
        """Do something, or say why not. What asks the user something goes on meanwhile."""

        async def attempt() -> None:
            try:
                await work
            except LongMambaError as error:
                self.library.give_way()
                await self.log_view.error(str(error), error.hint)

        self.run_worker(attempt(), group="commands")

    def action_command(self, name: str) -> None:
        """A key that does the same as a command."""
        self.command(f"/{name}")

    @on(Prompt.Scrolled)
    def scroll_what_is_seen(self, message: Prompt.Scrolled) -> None:
        """Page keys move the conversation, or the text that lies over it, while the prompt keeps the focus."""
        over = self.has_class("-over") and not self.library.beside
        seen = self.query_one(TextPane) if over else self.log_view
        if message.pages < 0:
            seen.scroll_page_up(animate=False)
        else:
            seen.scroll_page_down(animate=False)

    @on(Prompt.Left)
    def go_to_passages(self) -> None:
        """To the passages of the last answer that has some, else to whatever comes next."""
        for view in reversed(self.log_view.exchanges):
            if passages := view.query(PassageView):
                passages.first().focus()
                return
        self.focus_next()

    @on(TextArea.Changed)
    def hint_commands(self, message: TextArea.Changed) -> None:
        """Show what a command being typed may become."""
        self.query_one(CommandHints).show(message.text_area.text)

    async def action_stop(self) -> None:
        if self.conductor.busy or not self.library.give_way():
            await self.actions.stop()

    def action_help(self) -> None:
        from longmamba_mlx.tui.screens.help import HelpScreen  # the first frame waits for no dialog's code

        self.app.push_screen(HelpScreen())

    def action_resume(self) -> None:
        """Go on with the last talk about what is open, or the last of all."""
        self._attempt(self.actions.resume_last())

    def watch_keeping(self, keeping: bool) -> None:
        self.query_one("#ask").border_subtitle = (
            Content("every question goes on from the talk · /keep ends it") if keeping else ""
        )

    # What is clicked and chosen.

    @on(PassageView.Chosen)
    async def show_passage(self, message: PassageView.Chosen) -> None:
        """Go to a passage in the text."""
        await self._try_showing(lambda: self.library.follow(message))

    @on(MemoryMap.Chosen)
    async def show_stretch(self, message: MemoryMap.Chosen) -> None:
        """Go to a stretch of the text."""
        await self._try_showing(lambda: self.library.jump(message.offset))

    @on(TextPane.Step)
    async def show_match(self, message: TextPane.Step) -> None:
        """The next match in the text."""
        await self._try_showing(lambda: self.library.step(message.step))

    @on(TextPane.Moved)
    def mark_in_map(self, message: TextPane.Moved) -> None:
        """The map shows which part of the text is on the screen."""
        self.query_one(MemoryMap).see(message.start, message.end)

    @on(MemoryMap.Pointed)
    def name_stretch(self, message: MemoryMap.Pointed) -> None:
        """Say what the map's cursor is on."""
        self.status.flash(message.text)

    @on(TextPane.FindWanted)
    def type_find(self) -> None:
        """Let the words be typed where everything is typed."""
        self.prompt.put("/find ")
        self.prompt.focus()

    @on(TextPane.Left)
    @on(MemoryMap.Left)
    def action_back(self) -> None:
        """Back to the prompt."""
        self.library.leave()

    @on(StartMenu.Resumed)
    def resume_chosen(self, message: StartMenu.Resumed) -> None:
        """Go on with an earlier talk."""
        self._attempt(self.actions.resume(message.talk))

    @on(StartMenu.Wanted)
    def run_chosen(self, message: StartMenu.Wanted) -> None:
        """Do what the first screen offers."""
        self.prompt.focus()
        self.command(message.line)

    @on(StartMenu.Typed)
    def type_into_prompt(self, message: StartMenu.Typed) -> None:
        """Whatever is typed on the first screen is typed into the prompt."""
        self.set_focus(self.prompt)
        self.prompt.insert(message.text)
        if message.entered:
            self.prompt.submit()

    async def _try_showing(self, show: Callable[[], None]) -> None:
        try:
            show()
        except LongMambaError as error:
            self.status.flash(f"{error}. {error.hint or ''}")

    # Questions to the user, and keeping what was said.

    async def confirm(self, question: str, yes: str, no: str = "Keep") -> bool:
        """Ask before something is lost or fetched; `no` says what happens otherwise."""
        from longmamba_mlx.tui.screens.confirm import ConfirmScreen

        agreed: bool | None = await self.app.push_screen_wait(ConfirmScreen(question, yes, no))
        return bool(agreed)

    async def choose_model(self) -> str | None:
        """Let a model be chosen from those that fit this machine."""
        from longmamba_mlx.tui.screens.models import ModelsScreen

        return await self.app.push_screen_wait(ModelsScreen(self.conductor.model))

    async def choose_talk(self, search: str) -> Talk | None:
        """Let an earlier talk be chosen."""
        from longmamba_mlx.tui.screens.sessions import SessionsScreen

        if self.diary.store is None:
            raise LongMambaError("Talks are not kept", hint="The chat was started with --no-save.")
        return await self.app.push_screen_wait(SessionsScreen(self.diary, search))

    async def keep(self, exchange: Exchange) -> None:
        """An exchange is over: into the file with it."""
        desk = self.conductor.desk
        paths = desk.paths or desk.last_paths  # a question that was kept unasked may be about what was being read
        title = desk.document.title if desk.document else formatting.files(paths)
        await self.diary.keep(exchange, title, paths, self.conductor.model)
