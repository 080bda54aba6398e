"""What the screen can ask the engine for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from longmamba_mlx.tui.history.records import How


@dataclass(frozen=True, slots=True)
class Open:
    """Read these documents as one, or reopen them when they are remembered."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """Answer a question from what was read."""

    question: str
    how: How = field(default_factory=How)


@dataclass(frozen=True, slots=True)
class UseModel:
    """Load another model, or the same with another filter, and read the books with it."""

    name: str
    filter: str | None = None


@dataclass(frozen=True, slots=True)
class Switch:
    """Question another book of the shelf. `paths`: its files."""

    index: int
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete what is remembered of the book that is open."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Forget the talk, not the document."""


Job: TypeAlias = Open | Ask | UseModel | Switch | Forget | Reset
