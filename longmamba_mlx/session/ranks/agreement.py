"""Check that all ranks agree before they read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import UsageError
from longmamba_mlx.inference.ranks.ring import Ring
from longmamba_mlx.states.state_file import StateKey

NOTHING = -1
"""In place of the first token to read: everything is read."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that must be the same at all ranks; `hint` says what to do where it is not."""

    name: str
    value: object
    hint: str


def facts_of(version: str, key: StateKey) -> tuple[Fact, ...]:
    """What a document's state depends on, in the order of the most likely differences."""
    return (
        version_fact(version),
        Fact(
            "model",
            (key.model, key.quantisation, key.dtype, key.config, key.tokenizer, key.opening),
            "Copy the model's folder from the first machine to the others.",
        ),
        Fact(
            "text",
            (key.document, key.reader, key.tokens),
            "Every machine reads the document from its own disk: copy it there, under the same path.",
        ),
        Fact(
            "filter",
            (key.filter, key.calibration, key.plan_length),
            "Copy the model's calibration too, or calibrate it on every machine with the same text.",
        ),
        Fact("backend", (key.chunk, key.kernel), "Give all machines the same LONGMAMBA_KERNEL."),
    )


def version_fact(version: str) -> Fact:
    """The program's version, and those of what computes for it."""
    return Fact("version of longmamba-mlx, MLX or NumPy", version, "Install the same versions on all machines.")


def agree(ring: Ring, facts: Sequence[Fact], first: int) -> int:
    """Compare this rank's facts with the others' -> rank 0's `first`, the first token to read.

    Raises UsageError, at every rank, where anything differs and something is to be read.
    """
    own = [_digest(fact.value) for fact in facts]
    table = ring.gather(np.concatenate([np.frombuffer(np.int64(first).tobytes(), np.uint8), *own]))
    chosen = int(np.frombuffer(table[0, :8].tobytes(), np.int64)[0])
    if chosen == NOTHING:
        return chosen
    digests = table[:, 8:].reshape(ring.size, len(facts), -1)
    for number, fact in enumerate(facts):
        others = [rank for rank in range(ring.size) if not np.array_equal(digests[rank, number], digests[0, number])]
        if others:
            verb = "has" if len(others) == 1 else "have"
            raise UsageError(f"{named(others)} {verb} another {fact.name} than rank 0.", hint=fact.hint)
    return chosen


def named(ranks: Sequence[int]) -> str:
    """Ranks as a person lists them: "Rank 1", "Ranks 1, 2 and 3"."""
    if len(ranks) == 1:
        return f"Rank {ranks[0]}"
    return f"Ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"


def _digest(value: object) -> NDArray[np.uint8]:
    return np.frombuffer(hashlib.sha256(repr(value).encode()).digest(), np.uint8)
