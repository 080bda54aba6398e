"""How a question is put and its answer sampled, as keyword arguments; `ReadDocument.answering` says what they mean."""

from __future__ import annotations

from typing import TypedDict

from longmamba_mlx.errors import UsageError
from longmamba_mlx.ground.steps import Stop

_SHORTEST_PART = 16  # tokens


class Asking(TypedDict, total=False):
    """What an answer is taken from."""

    keep: bool
    reread: int
    as_of: str | None
    surest: bool
    part_tokens: int | None


class Sampling(TypedDict, total=False):
    """How its tokens are chosen."""

    max_tokens: int
    temperature: float
    seed: int


class AskOptions(Asking, Sampling, total=False):
    """All of them."""

    should_stop: Stop | None


def check_asking(*, keep: bool, reread: int, as_of: str | None, surest: bool, part_tokens: int | None) -> None:
    """Raises UsageError for options that exclude each other."""
    if surest and (keep or reread or as_of is not None):
        other = "a follow-up" if keep else "passages read again" if reread else "a place"
        raise UsageError(f"The surest part and {other} exclude each other.", hint="Ask for one of them.")
    if part_tokens is not None and (not surest or part_tokens < _SHORTEST_PART):
        why = f"at least {_SHORTEST_PART}" if surest else "a question to the surest part"
        raise UsageError(f"The tokens of a part need {why}.", hint="For example: --surest --part-tokens 1024")
