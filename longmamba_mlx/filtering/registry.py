"""All filter policies: a new one is a file in `policies/` and a row here.

Names, help, completion and the docs' tables follow from these rows. Policies are imported on first use, so that the
command line shows its help without NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

from longmamba_mlx.errors import UsageError

if TYPE_CHECKING:
    from longmamba_mlx.filtering.policies.base import Option, Policy

DEFAULT, DEFAULT_NAME = "paper", "longmamba"
"""The default policy, and the name that always means it."""

_FOLDER = "longmamba_mlx.filtering.policies"


@dataclass(frozen=True, slots=True)
class Entry:
    """A policy's name, a one-line summary, and the location of its class ("module:Class")."""

    name: str
    summary: str
    where: str


POLICIES: tuple[Entry, ...] = (
    Entry("off", "nothing is filtered", f"{_FOLDER}.off:Off"),
    Entry("paper", "the authors' table, to the letter", f"{_FOLDER}.paper:Paper"),
    Entry("curve", "the paper's rule in closed form, continuous in the length", f"{_FOLDER}.curve:Curve"),
    Entry("document", "the budget met on the document's own step sizes", f"{_FOLDER}.document:Document"),
    Entry("decimamba", "the predecessor: some layers drop tokens for good", f"{_FOLDER}.decimamba:DeciMamba"),
    Entry("scaled-dt", "a baseline: dt multiplied by one number", f"{_FOLDER}.scaled_dt:ScaledDt"),
    Entry("scaled-a", "a baseline: A multiplied by one number in each layer", f"{_FOLDER}.scaled_a:ScaledA"),
    Entry("clipped-a", "a baseline: the extremes of A clipped in each layer", f"{_FOLDER}.clipped_a:ClippedA"),
)


def names() -> tuple[str, ...]:
    """All filter names: those of the policies, with the alias of the default after `off`."""
    off, *others = (entry.name for entry in POLICIES)
    return (off, DEFAULT_NAME, *others)


def help_text() -> str:
    """One line of help for an option that takes a filter."""
    *first, last = names()
    return f"{', '.join(first)} or {last}; options follow colons, as in paper:last=64."


def policy_class(name: str) -> type[Policy]:
    """Return the policy class of a name. Raises UsageError for an unknown name."""
    wanted = DEFAULT if name == DEFAULT_NAME else name
    for entry in POLICIES:
        if entry.name == wanted:
            module, _, policy = entry.where.partition(":")
            return cast("type[Policy]", getattr(import_module(module), policy))
    raise UsageError(f"Unknown filter {name!r}.", hint=f"One of: {', '.join(names())}.")


def options(name: str) -> tuple[Option, ...]:
    """The options of a filter's name."""
    return policy_class(name).options


def completions(typed: str) -> list[str]:
    """Complete a partial filter name, or the last one of a comma-separated list."""
    before, comma, name = typed.rpartition(",")
    chosen, colon, option = name.rpartition(":")
    if not colon:
        found = [known for known in names() if known.startswith(name)]
    else:
        mode = chosen.partition(":")[0]
        known = options(mode) if mode in names() else ()
        found = [f"{chosen}:{each.key}=" for each in known if each.key.startswith(option)]
    return [f"{before}{comma}{each}" for each in found]
