"""Start `chat --file F` without loading Typer, which alone would take a quarter of a second.

Any other option goes through the whole command line.
"""

from __future__ import annotations

from collections.abc import Sequence


def only_files(words: Sequence[str]) -> list[str] | None:
    """The files of `chat --file F ...`; None with any other word, which Typer must parse."""
    if not words or words[0] != "chat":
        return None
    files, rest = [], list(words[1:])
    while rest:
        name, _, value = rest.pop(0).partition("=")
        if name not in ("--file", "-f") or (name == "-f" and value):
            return None
        value = value or (rest.pop(0) if rest else "")
        if not value or (value.startswith("-") and value != "-"):
            return None
        files.append(value)
    return files


def chat_about_files(files: list[str]) -> int | None:
    """Open the chat with the default model; its exit code. None where that model is not here."""
    from longmamba_mlx.cli.chat import chat_about
    from longmamba_mlx.registry import resolve

    model = resolve.user_default() or resolve.DEFAULT
    return chat_about(files, model) if resolve.is_here(model) else None
