"""One rank's part of a reading: rank 0 opens the document and stores its state, the others read along."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from longmamba_mlx.events import Event
from longmamba_mlx.ground.steps import Steps, Stop
from longmamba_mlx.inference.prefill import chunk_or_default
from longmamba_mlx.inference.progress import Progress
from longmamba_mlx.inference.ranks.ring import Ring
from longmamba_mlx.inference.ranks.wave import check_readable, wave_steps
from longmamba_mlx.inference.reading import PrefillOptions, Reading
from longmamba_mlx.session.open_document import count_and_plan, open_document
from longmamba_mlx.session.ranks.agreement import NOTHING, agree, facts_of
from longmamba_mlx.session.resume import PrefillTask
from longmamba_mlx.session.text_model import TextModel
from longmamba_mlx.states.checkpoints import places_of

if TYPE_CHECKING:
    from longmamba_mlx.documents.streamed_text import Text


def read_together(
    model: TextModel,
    document: Text,
    ring: Ring,
    version: str,
    *,
    chunk: int | None = None,
    should_stop: Stop | None = None,
) -> Iterator[Event]:
    """Read a document as one rank of `ring`. Rank 0 yields the events of `open_document`; the others yield theirs of
    counting and reading, and remember nothing.

    Raises UsageError where ranks differ (`agree`) or cannot read this at all, RankLostError, and what reading raises.
    """
    chunk = chunk_or_default(chunk)
    if ring.rank == 0:
        return _led(model, document, ring, version, chunk, should_stop)
    return _followed(model, document, ring, version, chunk)


def _led(
    model: TextModel, document: Text, ring: Ring, version: str, chunk: int, should_stop: Stop | None
) -> Iterator[Event]:
    lead = _Lead(ring, version)
    events = open_document(model, document, chunk=chunk, should_stop=should_stop, prefill=lead.prefill)
    opened = Steps(events)
    yield from opened
    if not lead.met:  # its state was stored
        agree(ring, facts_of(version, opened.result.key), NOTHING)


class _Lead:
    """Rank 0's way to read a document that is not remembered. `met`: whether the others know."""

    def __init__(self, ring: Ring, version: str) -> None:
        self.met = False
        self._ring, self._version = ring, version

    def prefill(
        self, model: TextModel, task: PrefillTask, options: PrefillOptions
    ) -> Generator[Progress, None, Reading]:
        check_readable(model.network, task.plan)
        first = 0 if options.start is None else options.start.state.tokens
        agree(self._ring, facts_of(self._version, task.key), first)
        self.met = True
        reading = yield from _wave(model, task, options, self._ring)
        if reading is None:
            raise RuntimeError("rank 0 has the state of the whole document")
        return reading


def _followed(model: TextModel, document: Text, ring: Ring, version: str, chunk: int) -> Iterator[Event]:
    counting = Steps(count_and_plan(model, document, chunk))
    yield from counting
    task = counting.result
    check_readable(model.network, task.plan)
    first = agree(ring, facts_of(version, task.key), 0)
    if first != NOTHING:
        start = Reading(replace(model.network.initial_state(), tokens=first), None, task.plan)
        for _ in _wave(model, task, PrefillOptions(chunk, start=start), ring):
            pass


def _wave(
    model: TextModel, task: PrefillTask, options: PrefillOptions, ring: Ring
) -> Generator[Progress, None, Reading | None]:
    """Sweeps end at the places that are remembered inside a document."""
    network, ids = model.network, task.counted.ids
    marks = places_of(len(ids), options.chunk, network.initial_state().nbytes)
    return wave_steps(network, ids, task.plan, options, ring, marks)
