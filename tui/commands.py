"""Every command of the chat, once: slash commands, the command palette and the help all read this table."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from longmamba_mlx.errors import UsageError


class ChatActions(Protocol):
    """What a command may do; the chat screen does it."""

    def show_help(self) -> None: ...

    def open_documents(self, argument: str) -> None: ...

    def stop(self) -> None: ...

    async def copy_answer(self) -> None: ...

    def export(self, argument: str) -> None: ...

    async def clear(self) -> None: ...

    def leave(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Command:
    """`argument` as the help shows it, "" for none; `key` is the binding that does the same, "" for none."""

    name: str
    argument: str
    summary: str
    run: Callable[[ChatActions, str], Awaitable[None] | None]
    key: str = ""

    @property
    def usage(self) -> str:
        """As typed: "/open FILE"."""
        return f"/{self.name} {self.argument}".rstrip()


COMMANDS: tuple[Command, ...] = (
    Command("help", "", "Keys and commands", lambda chat, _: chat.show_help(), "F1"),
    Command(
        "open",
        "FILE",
        "Read another document, or take up a stopped reading",
        lambda chat, a: chat.open_documents(a),
    ),
    Command("stop", "", "Stop the reading or the answer; what is there stays", lambda chat, _: chat.stop(), "Esc"),
    Command("copy", "", "Copy the last answer", lambda chat, _: chat.copy_answer()),
    Command("export", "FILE.md", "Save the conversation as Markdown", lambda chat, a: chat.export(a)),
    Command("clear", "", "Clear the screen; the document stays read", lambda chat, _: chat.clear()),
    Command("quit", "", "Leave", lambda chat, _: chat.leave(), "Ctrl+Q"),
)


def parse(line: str) -> tuple[Command, str]:
    """Split "/open my book.txt" into its command and argument. Raises UsageError on an unknown command."""
    name, _, argument = line.removeprefix("/").partition(" ")
    for command in COMMANDS:
        if command.name == name.strip():
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


def split_paths(argument: str) -> tuple[str, ...]:
    """One path as it stands when it exists, blanks and all; else several as a shell splits them."""
    if Path(argument).expanduser().exists():
        return (str(Path(argument).expanduser()),)
    try:
        parts = shlex.split(argument)
    except ValueError:
        parts = [argument]
    return tuple(str(Path(part).expanduser()) for part in parts)
