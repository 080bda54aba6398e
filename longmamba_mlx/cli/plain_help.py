"""Help without Python's names of types: Typer shows an argument as `question <str>`."""

from __future__ import annotations

import re
from typing import Any

import typer
from typer.core import TyperCommand

_TYPE = re.compile(r" <(?:str|int|float|path|file|list\[\w+\])>( *)")


class PlainCommand(TyperCommand):
    """A command whose help shows arguments by their names alone."""

    def get_help(self, ctx: Any) -> str:
        """The help text, as wide as before."""
        return _TYPE.sub(lambda found: " " * (len(found[0])), super().get_help(ctx))


def plain_help(app: typer.Typer) -> None:
    """Let every command of an app, and of the apps within it, show plain help."""
    for command in app.registered_commands:
        command.cls = PlainCommand
    for group in app.registered_groups:
        if group.typer_instance is not None:
            plain_help(group.typer_instance)
