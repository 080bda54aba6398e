"""Parsers for the arguments of commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from longmamba_mlx.errors import UsageError

_PLACE = re.compile(r"(\d+(?:\.\d+)?\s*%|(?:chapter|page|part|book|letter|section)\s+\S+)\s+(\S.*)", re.I | re.S)
_COUNT = re.compile(r"(\d+)\s+(\S.*)", re.S)
_REREAD, _MOST_REREAD = 3, 20


def split_paths(argument: str) -> tuple[str, ...]:
    """The whole argument as one path when that exists, else several, split as a shell does. All absolute."""
    if absolute(argument) and Path(absolute(argument)).exists():
        return (absolute(argument),)
    try:
        parts = shlex.split(argument)
    except ValueError:
        parts = [argument]
    return tuple(absolute(part) for part in parts)


def absolute(path: str) -> str:
    """The absolute name of a file, by which its conversation is found from any folder; invalid names stay unchanged."""
    try:
        named = Path(path).expanduser()
        return str(named.parent.resolve() / named.name)
    except (OSError, RuntimeError, ValueError):
        return path


def split_place(argument: str) -> tuple[str, str]:
    """ "chapter 12: who?" or "50% who?" -> the place and the question. Raises UsageError where one is missing."""
    place, colon, question = argument.partition(":")
    if colon and place.strip() and question.strip():
        return " ".join(place.split()), question.strip()
    if match := _PLACE.fullmatch(argument.strip()):
        return " ".join(match[1].split()), match[2].strip()
    raise UsageError("/as-of needs a place and a question", hint="For example: /as-of chapter 12: Who is Ishmael?")


def split_count(argument: str) -> tuple[int, str]:
    """ "5 who?" -> 5 and the question; 3 where no number is given."""
    count, question = _REREAD, argument.strip()
    if match := _COUNT.fullmatch(question):
        count, question = int(match[1]), match[2].strip()
    if not question or not 1 <= count <= _MOST_REREAD:
        raise UsageError(
            "/reread needs a question, and before it how many passages if you like",
            hint=f"For example: /reread 5 Who is Ishmael? (at most {_MOST_REREAD})",
        )
    return count, question
