"""The jobs the screen can submit to the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from longmamba_mlx.tui.history.records import How


@dataclass(frozen=True, slots=True)
class Open:
    """Read these files as one document, or reopen its saved state.

    `asks`: a reading of more than a minute needs the user's consent, since the size of a folder is unknown beforehand.
    """

    paths: tuple[str, ...]
    asks: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """Answer a question from what was read."""

    question: str
    how: How = field(default_factory=How)


@dataclass(frozen=True, slots=True)
class UseModel:
    """Load another model, or the same with another filter, and read all open documents with it."""

    name: str
    filter: str | None = None


@dataclass(frozen=True, slots=True)
class Switch:
    """Direct questions to another open document. `paths`: its files."""

    index: int
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete the saved state of the open document."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Let the next follow-up start from the document."""


Job: TypeAlias = Open | Ask | UseModel | Switch | Forget | Reset
