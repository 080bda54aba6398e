"""Find the state to resume a prefill from: its own checkpoint, or that of a beginning of the document.

A document begins with another one when its file has grown, or when files were added to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from longmamba_mlx.documents import Document
from longmamba_mlx.documents.streamed_text import Text, digest_of, length_of
from longmamba_mlx.errors import StateError
from longmamba_mlx.filtering import FilterPlan
from longmamba_mlx.ground.sizes import format_duration
from longmamba_mlx.inference.reading import Reading
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.states.checkpoints import CheckpointWriter, nearest_place
from longmamba_mlx.states.state_file import StateKey, StoredState, read_state
from longmamba_mlx.states.store import StateStore
from longmamba_mlx.tokenization.count import CountedText

# Fields of a key that another length of the same document, read in the same way, shares with it.
_SAME = (
    "tokenizer",
    "model",
    "config",
    "quantisation",
    "calibration",
    "chunk",
    "kernel",
    "dtype",
    "opening",
    "format_version",
)


@dataclass(frozen=True)
class PrefillTask:
    """A document that is about to be read: its ids, its filter plan (None: not filtered), the key of its state."""

    document: Text
    counted: CountedText
    plan: FilterPlan | None
    key: StateKey


def find_start(
    task: PrefillTask, writer: CheckpointWriter, store: StateStore, like: ModelState, warn: Callable[[str], object]
) -> Reading | None:
    """The reading of the first tokens of a task, and `writer` set to resume from it; None to read from the beginning.

    `like` is the model's initial state. `warn` receives one line for a file that cannot be used, and one when a
    beginning was read before but must be read again.
    """
    if task.plan is not None and task.plan.needs_document:
        return None  # a layerwise prefill has no states in between
    found = writer.load(like) or _from_shorter(task, writer, store, like, warn)
    return None if found is None else Reading(found.state, None, task.plan, found.kept)


def _from_shorter(
    task: PrefillTask, writer: CheckpointWriter, store: StateStore, like: ModelState, warn: Callable[[str], object]
) -> StoredState | None:
    """The last place inside a stored beginning of the document, if the filter treats its tokens alike."""
    for key in _shorter(task, store):
        try:
            old = read_state(store.path(key), key=key, like=like)
        except StateError:
            continue
        if not _filters_alike(old, task.plan):
            warn(_read_again(task, key, old))
            return None
        found = nearest_place(store.places_folder(key), key, task.counted.ids, like, warn)
        if found is not None:
            writer.resume_from(found.state.tokens)
            kept = None if old.kept is None else old.kept[: found.state.tokens]
            return replace(found, kept=kept)
    return None


def _shorter(task: PrefillTask, store: StateStore) -> Iterator[StateKey]:
    """Keys of stored states whose document is a beginning of this one, the longest first.

    Looked at are documents of the same title (the file has grown), and those that end where a file of this one ends.
    """
    parts = task.document.parts if isinstance(task.document, Document) else ()
    ends = {part.end for part in parts}
    found = []
    for entry in store.list():
        key, info = entry.key, entry.info
        if key is None or info is None or entry.unfinished or key.tokens >= task.key.tokens:
            continue
        length = info.get("characters")
        if not isinstance(length, int) or not 0 < length < length_of(task.document):
            continue
        if info.get("title") != task.document.title and length not in ends:
            continue
        if any(getattr(key, name) != getattr(task.key, name) for name in _SAME):
            continue
        if digest_of(task.document, length) == key.document:
            found.append(key)
    yield from sorted(found, key=lambda key: -key.tokens)


def _read_again(task: PrefillTask, key: StateKey, old: StoredState) -> str:
    """Why nothing of the stored beginning can be used, and how long reading takes at its speed."""
    total = len(task.counted.ids)
    seconds = old.info.get("seconds")
    known = isinstance(seconds, int | float) and seconds > 0 and key.tokens > 0
    time = f" (about {format_duration(seconds / key.tokens * total)})" if known else ""  # type: ignore[operator]
    return (
        f"The filter depends on the length of the whole: all {total:,} tokens are read again{time}, "
        f"also the {key.tokens:,} that were read before."
    )


def _filters_alike(old: StoredState, plan: FilterPlan | None) -> bool:
    """Whether every token of the old document was filtered as this plan would filter it."""
    if plan is None or not old.thresholds:
        return plan is None and not old.thresholds
    if plan.policy.protect_last or plan.is_scaled or old.info.get("settings") != plan.policy.canonical():
        return False
    new = plan.all_thresholds()
    return len(new) == len(old.thresholds) and all(
        (a is None) == (b is None) and (a is None or b is None or np.array_equal(a, b))
        for a, b in zip(new, old.thresholds, strict=True)
    )
