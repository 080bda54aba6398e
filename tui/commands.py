"""Every command of the chat, once: slash commands, the command palette and the help all read this table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from longmamba_mlx.errors import UsageError
from longmamba_mlx.filtering import registry

if TYPE_CHECKING:
    from longmamba_mlx.tui.actions import Actions


@dataclass(frozen=True, slots=True)
class Command:
    """`argument` as the help shows it, "" for none, in brackets when it may be left out; `key` is the binding that does
    the same, "" for none; `part` is the heading it stands under."""

    part: str
    name: str
    argument: str
    summary: str
    run: Callable[[Actions, str], Awaitable[None] | None]
    key: str = ""

    @property
    def usage(self) -> str:
        """As typed: "/open FILE"."""
        return f"/{self.name} {self.argument}".rstrip()

    @property
    def shows_text(self) -> bool:
        """Whether what it does is seen in the text, not in the talk."""
        return self.part == _TEXT

    @property
    def needs_argument(self) -> bool:
        """Whether it cannot be run as it is."""
        return bool(self.argument) and not self.argument.startswith("[")


_BOOKS, _ASKING, _TEXT, _TALK, _PROGRAM = "Books and models", "Asking", "The text", "The talk", "The program"

COMMANDS: tuple[Command, ...] = (
    Command(_BOOKS, "open", "FILE…", "Read a document, or take up a stopped reading", lambda do, a: do.open(a)),
    Command(_BOOKS, "add", "FILE…", "Read the open document and FILE together, as one", lambda do, a: do.add(a)),
    Command(_BOOKS, "books", "[NUMBER]", "What is read; go to one without reading again", lambda do, a: do.books(a)),
    Command(_BOOKS, "forget", "", "Delete what is remembered of the open document", lambda do, _: do.forget()),
    Command(_BOOKS, "model", "[NAME]", "Choose another model; what is open is read again", lambda do, a: do.model(a)),
    Command(_BOOKS, "filter", "NAME", ", ".join(registry.names()), lambda do, a: do.filter(a)),
    Command(_ASKING, "compare", "[QUESTION]", "Answer with the filter off and on", lambda do, a: do.compare(a)),
    Command(_ASKING, "as-of", "PLACE: QUESTION", "From what was known at that place", lambda do, a: do.as_of(a)),
    Command(_ASKING, "keep", "[QUESTION]", "Go on from the talk so far; alone: always", lambda do, a: do.keep(a)),
    Command(_ASKING, "reread", "[N] QUESTION", "Read the N best passages again first", lambda do, a: do.reread(a)),
    Command(_ASKING, "reset", "", "The next /keep begins at the document again", lambda do, _: do.reset()),
    Command(_ASKING, "stop", "", "Stop what runs; what is there stays", lambda do, _: do.stop(), "Esc"),
    Command(_TEXT, "text", "", "Show or hide the text", lambda do, _: do.text(), "F2"),
    Command(_TEXT, "find", "[WORDS]", "Search the text; alone: the next match", lambda do, a: do.find(a)),
    Command(_TEXT, "map", "", "Walk along what the filter kept", lambda do, _: do.map(), "F3"),
    Command(_TALK, "copy", "[all]", "Copy the last answer, or the whole talk", lambda do, a: do.copy(a)),
    Command(_TALK, "export", "FILE", "Save the talk: .md or .json", lambda do, a: do.export(a)),
    Command(_TALK, "sessions", "[WORDS]", "Earlier talks: go on, rename, delete", lambda do, a: do.sessions(a), "F4"),
    Command(_TALK, "rename", "TITLE", "Give this talk a title", lambda do, a: do.rename(a)),
    Command(_TALK, "new", "", "Begin a new talk; what is read stays", lambda do, _: do.new()),
    Command(_TALK, "clear", "", "Clear the screen; the talk is kept", lambda do, _: do.clear()),
    Command(_PROGRAM, "themes", "[NAME]", "Other colours", lambda do, a: do.themes(a)),
    Command(_PROGRAM, "help", "", "Keys and commands", lambda do, _: do.help(), "F1"),
    Command(_PROGRAM, "quit", "", "Leave", lambda do, _: do.leave(), "Ctrl+Q"),
)


def parse(line: str) -> tuple[Command, str]:
    """Split "/open my book.txt" into its command and argument. Raises UsageError on an unknown command."""
    name, _, argument = line.removeprefix("/").partition(" ")
    for command in COMMANDS:
        if command.name == name.strip():
            if command.needs_argument and not argument.strip() and command.name != "open":
                raise UsageError(f"/{command.name} needs {command.argument}", hint=command.summary)
            return command, argument.strip()
    raise UsageError(
        f"No command /{name.strip()}",
        hint="/help lists them. A question that begins with / takes a space before it.",
    )


def matching(line: str) -> tuple[Command, ...]:
    """The commands a line being typed may become: "/e" -> export; none when it is not a command."""
    if not line.startswith("/") or "\n" in line:
        return ()
    name, space, _ = line[1:].partition(" ")
    if space:
        return tuple(command for command in COMMANDS if command.name == name)
    return tuple(command for command in COMMANDS if command.name.startswith(name))
