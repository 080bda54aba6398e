"""The chat screen: its widgets, its keys, and where messages go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static, TextArea

from longmamba_mlx.errors import LongMambaError
from longmamba_mlx.tui.commands.runner import Commands
from longmamba_mlx.tui.controller import ChatController
from longmamba_mlx.tui.document_panel import DocumentPanel
from longmamba_mlx.tui.history.recorder import ConversationRecorder
from longmamba_mlx.tui.history.store import ConversationStore
from longmamba_mlx.tui.rendering import formatting
from longmamba_mlx.tui.rendering.flat_containers import FlatHorizontal
from longmamba_mlx.tui.screens.dialogs import DialogScreen
from longmamba_mlx.tui.terminal.clipboard import Copied, copy_text
from longmamba_mlx.tui.widgets.chat_log import ChatLog
from longmamba_mlx.tui.widgets.hints import CommandHints
from longmamba_mlx.tui.widgets.memory_map import MemoryMap
from longmamba_mlx.tui.widgets.passage import PassageView
from longmamba_mlx.tui.widgets.prompt import Prompt
from longmamba_mlx.tui.widgets.reader import Reader
from longmamba_mlx.tui.widgets.reading_bar import ReadingBar
from longmamba_mlx.tui.widgets.start_menu import StartMenu
from longmamba_mlx.tui.widgets.status_line import StatusLine
from longmamba_mlx.tui.widgets.suggestions import Suggestions
from longmamba_mlx.tui.widgets.text_pane import TextPane
from longmamba_mlx.tui.widgets.title_bar import TitleBar
from longmamba_mlx.tui.worker.engine import Engine

_LOOK_SECONDS = 3.0  # between two looks at the open document's files


class ChatScreen(DialogScreen):
    """One conversation about the open documents. Implements `ChatView`."""

    AUTO_FOCUS = "Prompt"  # keys pressed before the first frame are for the prompt, not for the first thing in sight
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", show=False),
        Binding("f1", "command('help')", "Help", show=False),
        Binding("f2", "command('text')", "The text", show=False),
        Binding("f3", "command('map')", "The memory map", show=False),
        Binding("f4", "command('sessions')", "Earlier conversations", show=False),
        Binding("f5", "command('get')", "A real model", show=False),
        Binding("ctrl+r", "resume", "Resume the last conversation", show=False),
    ]

    def __init__(
        self,
        engine: Engine,
        store: ConversationStore | None,
        model: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._model = model  # shown until one is loaded
        self.recorder = ConversationRecorder(store, self._show_error)
        self.panel = DocumentPanel(self)
        self.controller = ChatController(self, engine, self.panel, self.recorder, clock)
        self.commands = Commands(self, self.controller, self.panel, self.recorder)

    def compose(self) -> ComposeResult:
        yield TitleBar()
        yield MemoryMap()
        with FlatHorizontal(id="body"):
            yield ChatLog()
            yield Reader()
        yield ReadingBar()
        yield CommandHints()
        with Horizontal(id="ask"):
            yield Static("❯", id="caret", markup=False)
            yield Prompt()
        yield StatusLine()

    def on_mount(self) -> None:
        self.title_bar.show_model(self._model)
        self.run_worker(self.controller.pump(), group="events")
        self.set_interval(_LOOK_SECONDS, self.controller.watch_files)

    async def greet(self, paths: tuple[str, ...]) -> None:
        """After the first frame: read the named files, or offer the start menu."""
        if paths:
            self.commands.documents.read(paths)
        for question in await self.recorder.questions():
            self.prompt.asked.add(question)
        if not paths:
            menu = StartMenu(await self.recorder.conversations(limit=5))
            if not self.log_view.is_attached:  # the user left meanwhile
                return
            await self.log_view.offer(menu)
            if not self.prompt.text:
                menu.focus()
        elif (earlier := await self.recorder.latest_about(paths)) is not None and self.log_view.is_attached:
            asked = formatting.pluralize(earlier.exchanges, "question")
            added = formatting.files(earlier.paths[len(paths) :])
            about = f"this and {added}" if added else "this"
            await self.log_view.note(f"You asked {asked} about {about} before: Ctrl+R resumes that conversation")

    # Its widgets.

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
    def memory_map(self) -> MemoryMap:
        return self.query_one(MemoryMap)

    @property
    def reader(self) -> Reader:
        return self.query_one(Reader)

    @property
    def paths(self) -> tuple[str, ...]:
        """The files of the open document; () when they are not known."""
        return self.controller.queue.paths

    # What is typed.

    @on(Prompt.Submitted)
    async def take_prompt(self, message: Prompt.Submitted) -> None:
        """A command or a question was entered."""
        self.status.flash("")
        if message.text.startswith("/"):
            self.command(message.text)
        else:
            self.panel.give_way()
            asked = self.commands.asking.ask(message.text.strip())
            if self.controller.changed_files():  # the user is asked first, which this handler must not wait for
                self.run(asked)
            else:
                await asked

    def command(self, line: str) -> None:
        """Run a line that starts with /."""
        self.run(self.commands.run(line))

    def run(self, work: Awaitable[None]) -> None:
        """Run a command in a worker, or show why it cannot be done."""

        async def attempt() -> None:
            try:
                await work
            except LongMambaError as error:
                self.panel.give_way()
                await self.log_view.error(str(error), error.hint)

        self.run_worker(attempt(), group="commands")

    def action_command(self, name: str) -> None:
        """Run a command by its key."""
        self.command(f"/{name}")

    @on(Prompt.Scrolled)
    def scroll_what_is_seen(self, message: Prompt.Scrolled) -> None:
        """Scroll the conversation, or the text that covers it, while the prompt keeps the focus."""
        over = self.has_class("-over") and not self.panel.beside
        seen = self.reader.pane if over else self.log_view
        if message.pages < 0:
            seen.scroll_page_up(animate=False)
        else:
            seen.scroll_page_down(animate=False)

    @on(Prompt.Left)
    def go_to_passages(self) -> None:
        """Focus the passages of the last answer that has some, else the next widget."""
        for view in reversed(self.log_view.exchanges):
            if passages := view.query(PassageView):
                passages.first().focus()
                return
        if suggestions := self.query(Suggestions):
            suggestions.first().focus()
        else:
            self.focus_next()

    @on(TextArea.Changed)
    def hint_commands(self, message: TextArea.Changed) -> None:
        """Show the commands that match what is typed."""
        self.query_one(CommandHints).show(message.text_area.text)
        self._suggest()
        if message.text_area.text and isinstance(self.focused, StartMenu):  # typed before the menu took the focus
            self.set_focus(self.prompt)

    @on(Prompt.HintMoved)
    def move_hint(self, message: Prompt.HintMoved) -> None:
        """Choose among the commands that match what is typed."""
        self.query_one(CommandHints).move(message.step)
        self._suggest()

    def _suggest(self) -> None:
        chosen = self.query_one(CommandHints).chosen
        self.prompt.chosen_command = chosen.name if chosen is not None else ""

    async def action_stop(self) -> None:
        if self.controller.busy or not self.panel.give_way():
            await self.commands.asking.stop()

    def action_resume(self) -> None:
        """Resume the last conversation about the open document, or the last of all."""
        self.run(self.commands.conversation.resume_last())

    # What is clicked and chosen.

    @on(PassageView.Chosen)
    async def show_passage(self, message: PassageView.Chosen) -> None:
        """Go to a passage in the text."""
        await self._try_showing(lambda: self.panel.follow(message))

    @on(MemoryMap.Chosen)
    async def show_stretch(self, message: MemoryMap.Chosen) -> None:
        """Go to a stretch of the text."""
        await self._try_showing(lambda: self.panel.jump(message.offset))

    @on(TextPane.Step)
    async def show_match(self, message: TextPane.Step) -> None:
        """Go to the next match in the text."""
        await self._try_showing(lambda: self.panel.step(message.step))

    @on(TextPane.Moved)
    def mark_in_map(self, message: TextPane.Moved) -> None:
        """Mark in the map which part of the text is on the screen."""
        self.memory_map.see(message.start, message.end)

    @on(MemoryMap.Pointed)
    def name_stretch(self, message: MemoryMap.Pointed) -> None:
        """Describe the stretch under the map's cursor."""
        self.status.flash(message.text)

    @on(TextPane.FindWanted)
    def type_find(self) -> None:
        """Type /find into the prompt."""
        self.prompt.put("/find ")
        self.prompt.focus()

    @on(TextPane.Left)
    @on(MemoryMap.Left)
    def action_back(self) -> None:
        """Go back to the prompt."""
        self.panel.leave()

    @on(StartMenu.Resumed)
    def resume_chosen(self, message: StartMenu.Resumed) -> None:
        """Resume an earlier conversation."""
        self.run(self.commands.conversation.resume(message.conversation))

    @on(StartMenu.Wanted)
    def run_chosen(self, message: StartMenu.Wanted) -> None:
        """Run what was chosen in the start menu."""
        self.prompt.focus()
        self.command(message.line)

    @on(StartMenu.Typed)
    def type_into_prompt(self, message: StartMenu.Typed) -> None:
        """Type into the prompt what was typed over the start menu."""
        self.set_focus(self.prompt)
        self.prompt.insert(message.text)
        if message.entered:
            self.prompt.submit()

    @on(Suggestions.Chosen)
    def ask_suggested(self, message: Suggestions.Chosen) -> None:
        """Ask a suggested question."""
        self.prompt.focus()
        self.post_message(Prompt.Submitted(message.line))

    async def _try_showing(self, show: Callable[[], None]) -> None:
        try:
            show()
        except LongMambaError as error:
            self.status.flash(f"{error}. {error.hint or ''}")

    async def _show_error(self, message: str, hint: str | None) -> None:
        await self.log_view.error(message, hint)

    # What the helpers ask of it.

    def show_follow_up(self, on: bool) -> None:
        """Show whether every question is a follow-up."""
        hint = Content("every question is a follow-up · /keep ends it")
        self.query_one("#ask").border_subtitle = hint if on else ""

    async def copy(self, text: str, what: str = "Selection") -> None:
        """Fill the desktop's clipboard, and the terminal's where it knows OSC 52 (ssh); say how that went."""
        self.app.copy_to_clipboard(text)
        copied = Copied(True, "") if self.app.is_headless else await asyncio.to_thread(copy_text, text)
        self.status.flash(copied.said(what))

    def quit(self, exit_code: int) -> None:
        """End the program and give the terminal back."""
        self.app.exit(exit_code)
