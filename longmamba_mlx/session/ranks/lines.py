"""Messages from a rank to its starter: one JSON object per line, on standard output."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TypeAlias

from longmamba_mlx.events import Counted, Event, Failed, Loaded, Loading, Notice, ReadDone, ReadProgress


@dataclass(frozen=True, slots=True)
class Hello:
    """A rank has started, as process `pid` of `host`."""

    host: str
    pid: int


@dataclass(frozen=True, slots=True)
class Beat:
    """The rank is alive."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The rank waits for a byte of input to connect to the others, which takes all its attention."""


@dataclass(frozen=True, slots=True)
class Joined:
    """The rank is connected to the others, and takes no more input."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The rank has lost its connection to another one."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The rank has finished; `sent`: the bytes it sent to the next one."""

    sent: int


Told: TypeAlias = Hello | Beat | Ready | Joined | Lost | Ended | Event

_OWN = (Hello, Beat, Ready, Joined, Lost, Ended)
_KINDS = {kind.__name__: kind for kind in (*_OWN, Loading, Loaded, Counted, ReadProgress, ReadDone, Notice, Failed)}
_TYPES = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,), "str | None": (str, type(None))}


def to_line(rank: int, told: Told) -> str:
    """ASCII, so that no reader splits a character."""
    return json.dumps({"rank": rank, "is": type(told).__name__, **asdict(told)}) + "\n"


def from_line(line: str) -> tuple[int, Told] | None:
    """Parse a line into a rank and its message; None for any other line."""
    try:
        table = json.loads(line)
        rank, kind = table.pop("rank"), _KINDS[table.pop("is")]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None
    types = {field.name: _TYPES[str(field.type)] for field in fields(kind)}
    fits = table.keys() == types.keys() and all(isinstance(table[name], types[name]) for name in types)
    return (rank, kind(**table)) if fits and isinstance(rank, int) else None
