"""Every command of the chat, once: slash commands, the menu, completion and the help all read this table."""

from __future__ import annotations

from dataclasses import dataclass

from longmamba_mlx.errors import UsageError

HEADINGS = {
    "documents": "Documents and models",
    "asking": "Asking",
    "text": "The text",
    "conversation": "The conversation",
    "program": "The program",
}


@dataclass(frozen=True, slots=True)
class Command:
    """A slash command, run by the method of its name in the module `group`.

    `argument` as the help shows it: "" for none, in brackets when optional. `key`: the binding that does the same.
    """

    group: str
    name: str
    argument: str
    summary: str
    key: str = ""

    @property
    def usage(self) -> str:
        """As typed: "/open FILE"."""
        return f"/{self.name} {self.argument}".rstrip()

    @property
    def method(self) -> str:
        """Name of the method that runs it."""
        return self.name.replace("-", "_")

    @property
    def shows_text(self) -> bool:
        """Whether its effect is seen in the text, not in the conversation."""
        return self.group == "text"

    @property
    def needs_argument(self) -> bool:
        """Whether it cannot run without an argument."""
        return bool(self.argument) and not self.argument.startswith("[")


COMMANDS: tuple[Command, ...] = (
    Command("documents", "open", "FILE…", "Read a document, or resume a stopped reading"),
    Command("documents", "add", "FILE…", "Read the open document and FILE together, as one"),
    Command("documents", "books", "[NUMBER]", "List the open documents; switch to one at once"),
    Command("documents", "forget", "", "Delete the saved state of the open document"),
    Command("documents", "model", "[NAME]", "Choose another model; what is open is read again"),
    Command("documents", "get", "", "Get a real model that fits this machine", "F5"),
    Command("documents", "filter", "[NAME]", "Read again with another filter; alone, list them"),
    Command("asking", "overview", "", "What the document is about, and what to ask"),
    Command("asking", "compare", "[QUESTION]", "Answer with the filter off and on"),
    Command("asking", "as-of", "PLACE: QUESTION", "Answer from what was known at that place"),
    Command("asking", "keep", "[QUESTION]", "Ask a follow-up; alone, toggle follow-up mode"),
    Command("asking", "reread", "[N] QUESTION", "Read the N best passages again first"),
    Command("asking", "surest", "QUESTION", "Ask every part of the text; the surest answers"),
    Command("asking", "reset", "", "Start the next follow-up from the document again"),
    Command("asking", "stop", "", "Stop what is running; the answer so far stays", "Esc"),
    Command("text", "text", "", "Show or hide the text", "F2"),
    Command("text", "find", "[WORDS]", "Search the text; without words, the next match"),
    Command("text", "map", "", "Walk along the memory map", "F3"),
    Command("conversation", "copy", "[all]", "Copy the last answer, or the whole conversation"),
    Command("conversation", "export", "FILE", "Save the conversation: .md or .json"),
    Command("conversation", "sessions", "[WORDS]", "Earlier conversations: resume, rename, delete", "F4"),
    Command("conversation", "rename", "TITLE", "Give this conversation a title"),
    Command("conversation", "new", "", "Start a new conversation; documents stay open"),
    Command("conversation", "clear", "", "Clear the screen; the conversation is kept"),
    Command("program", "themes", "[NAME]", "Change the colours"),
    Command("program", "help", "", "Keys and commands", "F1"),
    Command("program", "quit", "", "Leave", "Ctrl+Q"),
)
ALIASES = {"conversations": "sessions"}


def parse(line: str) -> tuple[Command, str]:
    """Split "/open my book.txt" into its command and argument. Raises UsageError on an unknown command."""
    name, _, argument = line.removeprefix("/").partition(" ")
    name = ALIASES.get(name.strip(), name.strip())
    for command in COMMANDS:
        if command.name == name:
            if command.needs_argument and not argument.strip() and command.name != "open":
                raise UsageError(f"/{command.name} needs {command.argument}", hint=command.summary)
            return command, argument.strip()
    raise UsageError(
        f"Unknown command /{name}",
        hint="/help lists them. Put a space before a question that starts with /.",
    )


def matching(line: str) -> tuple[Command, ...]:
    """The commands a line being typed may become: "/e" -> export; none when it is not a command."""
    if not line.startswith("/") or "\n" in line:
        return ()
    name, space, _ = line[1:].partition(" ")
    if space:
        return tuple(command for command in COMMANDS if command.name == ALIASES.get(name, name))
    found = tuple(command for command in COMMANDS if command.name.startswith(name))
    aliased = {command for alias, command in ALIASES.items() if alias.startswith(name)}
    return found or tuple(command for command in COMMANDS if command.name in aliased)
