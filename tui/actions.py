"""What the commands do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from longmamba_mlx.errors import UsageError
from longmamba_mlx.sizes import format_size
from longmamba_mlx.tui import arguments
from longmamba_mlx.tui.history import transcript
from longmamba_mlx.tui.history.records import Exchange, How, Stage
from longmamba_mlx.tui.rendering import formatting
from longmamba_mlx.tui.widgets.memory_map import MemoryMap
from longmamba_mlx.tui.worker.jobs import Forget, Open, Reset, Switch, UseModel

if TYPE_CHECKING:
    from longmamba_mlx.tui.chat import ChatScreen
    from longmamba_mlx.tui.history.store import Talk


class Actions:
    """One method per command of the table in `commands`, on one chat screen. They raise UsageError and DiskError."""

    def __init__(self, screen: ChatScreen) -> None:
        self._screen = screen

    # Books and models.

    def open(self, argument: str) -> None:
        paths = arguments.split_paths(argument) if argument else self._screen.conductor.desk.last_paths
        if not paths:
            raise UsageError("/open needs a file", hint="For example: /open book.txt")
        self.read(paths)

    def read(self, paths: tuple[str, ...]) -> None:
        """Put a reading into the row."""
        self._screen.conductor.submit(Open(paths))

    def add(self, argument: str) -> None:
        paths = self._screen.conductor.desk.coming_paths
        if not paths:
            raise UsageError("No document is open to add to", hint="/open FILE reads the first one")
        more = tuple(path for path in arguments.split_paths(argument) if path not in paths)
        if not more:
            raise UsageError("That is part of the open document already")
        self.read((*paths, *more))

    async def books(self, argument: str) -> None:
        books = self._screen.library.books
        if not argument:
            if not books:
                raise UsageError("Nothing is read yet", hint="/open FILE reads a document")
            for number, book in enumerate(books):
                mark = " · open" if number == self._screen.library.current else ""
                await self._screen.log_view.note(f"{number + 1}  {book.title} · {book.tokens:,} tokens{mark}")
            return
        if not argument.isdecimal() or not 1 <= int(argument) <= len(books):
            raise UsageError(f"There is no book {argument}", hint="/books lists them.")
        index = int(argument) - 1
        self._screen.conductor.submit(Switch(index, self._screen.conductor.files_of(books[index].digest)))

    async def forget(self) -> None:
        book = self._screen.library.book
        if book is None:
            raise UsageError("No document is open")
        question = f"Delete what is remembered of {book.title}? To ask about it later it has to be read again."
        if await self._screen.confirm(question, "Delete"):
            self._screen.conductor.submit(Forget())

    async def model(self, argument: str) -> None:
        name = argument or await self._screen.choose_model()
        if name and await self._may_fetch(name):
            self._screen.conductor.submit(UseModel(name))

    async def _may_fetch(self, name: str) -> bool:
        """Ask before a model is downloaded; its size is said where it is known."""
        from longmamba_mlx.tui.screens.model_choices import download_size  # the first frame does not wait for the table

        size = download_size(name)
        if size is None:
            return True
        about = f"about {format_size(size)}" if size else "its size is told when the download begins"
        return await self._screen.confirm(f"Download {name} and convert it? ({about})", "Download", "Not now")

    def filter(self, argument: str) -> None:
        model = self._screen.conductor.model
        if not model:
            raise UsageError("No model is loaded yet", hint="/open FILE reads a document")
        self._screen.conductor.submit(UseModel(model, argument))

    # Asking.

    async def ask(self, question: str) -> None:
        """An ordinary question."""
        await self._ask(question, How(keep=self._screen.keeping))

    async def compare(self, argument: str) -> None:
        question = argument or next((record.question for record in reversed(self._screen.log_view.records)), "")
        if not question:
            raise UsageError("/compare needs a question", hint="For example: /compare Who is Ishmael?")
        await self._ask(question, How(compare=True))

    async def as_of(self, argument: str) -> None:
        place, question = arguments.split_place(argument)
        await self._ask(question, How(as_of=place))

    async def keep(self, argument: str) -> None:
        if argument:
            await self._ask(argument, How(keep=True))
        else:
            self._screen.keeping = not self._screen.keeping

    async def reread(self, argument: str) -> None:
        count, question = arguments.split_count(argument)
        await self._ask(question, How(reread=count, keep=self._screen.keeping))

    def reset(self) -> None:
        self._screen.conductor.submit(Reset())

    async def stop(self) -> None:
        """End what runs; when nothing runs take back the last queued question."""
        if self._screen.conductor.stop():
            return
        view = self._screen.conductor.desk.withdraw()
        if view is not None:
            if not self._screen.prompt.text:
                self._screen.prompt.put(view.exchange.question)
            await self._screen.log_view.withdraw(view)

    async def _ask(self, question: str, how: How) -> None:
        await self._screen.conductor.ask(Exchange(question, how))

    # The text.

    def text(self) -> None:
        self._screen.library.toggle()

    def find(self, argument: str) -> None:
        self._screen.library.find(argument)

    def map(self) -> None:
        strip = self._screen.query_one(MemoryMap)
        if not strip.display:
            raise UsageError("There is no map: nothing was filtered", hint="Short texts are kept whole.")
        strip.focus()

    # The talk.

    async def copy(self, argument: str) -> None:
        if argument == "all":
            await self._screen.app.copy(transcript.to_markdown(self._title(), self._over()))
            self._screen.status.flash("The talk is copied")
            return
        answer = next((record.text for record in reversed(self._screen.log_view.records) if record.text), "")
        if not answer:
            raise UsageError("There is no answer to copy yet")
        await self._screen.app.copy(answer.strip())
        self._screen.status.flash("Answer copied")

    def export(self, argument: str) -> None:
        path = Path(argument).expanduser()
        transcript.export(path, self._title(), self._over())
        self._screen.status.flash(f"Saved {path}")

    def _over(self) -> list[Exchange]:
        over = [record for record in self._screen.log_view.records if record.stage is not Stage.WAITING]
        if not over:
            raise UsageError("There is nothing to export yet")
        return over

    def _title(self) -> str:
        document = self._screen.conductor.desk.document
        return document.title if document else ""

    async def sessions(self, argument: str) -> None:
        talk = await self._screen.choose_talk(argument)
        if talk is not None:
            await self.resume(talk)

    async def resume_last(self) -> None:
        """Go on with the last talk about what is open, or the last of all."""
        diary, desk = self._screen.diary, self._screen.conductor.desk
        paths = desk.paths or desk.last_paths
        talks = [await diary.latest_about(paths)] if paths else await diary.talks(limit=1)
        if talks and talks[0] is not None:
            await self.resume(talks[0])
        elif diary.store is None:
            self._screen.status.flash("Talks are not kept: the chat was started with --no-save")
        else:
            about = f" about {formatting.files(paths)}" if paths else ""
            self._screen.status.flash(f"No talk{about} is kept · F4 lists all talks")

    async def resume(self, talk: Talk) -> None:
        """Show an earlier talk, and open what it is about. Raises UsageError while something runs."""
        screen = self._screen
        if screen.conductor.busy and not screen.conductor.desk.reading:
            raise UsageError("An answer is coming", hint="Esc stops it.")
        await screen.log_view.show_talk(await screen.diary.resume(talk))
        await screen.log_view.note(f"Going on with “{talk.title}”")
        desk = screen.conductor.desk
        if talk.paths and talk.paths != (desk.last_paths if desk.reading else desk.paths):
            if not all(Path(path).exists() for path in talk.paths):
                piped = any(Path(path).name == "stdin" for path in talk.paths)
                where = "It came through a pipe." if piped else f"It was {', '.join(talk.paths)}"
                await screen.log_view.error("Its document is not there any more", f"{where} /open FILE reads it.")
            else:
                self.read(talk.paths)

    async def rename(self, argument: str) -> None:
        await self._screen.diary.rename(argument)
        self._screen.status.flash("Renamed")

    async def new(self) -> None:
        if self._screen.conductor.busy and not self._screen.conductor.desk.reading:
            raise UsageError("An answer is coming", hint="Esc stops it.")
        self._screen.diary.begin()
        await self._screen.log_view.clear()

    async def clear(self) -> None:
        await self._screen.log_view.clear()

    # The program.

    def themes(self, argument: str) -> None:
        app = self._screen.app
        if not argument:
            app.action_change_theme()
        elif argument in app.available_themes:
            app.theme = argument
        else:
            raise UsageError(f"There is no theme {argument}", hint=", ".join(sorted(app.available_themes)))

    def help(self) -> None:
        self._screen.action_help()

    def leave(self) -> None:
        self._screen.app.leave()
