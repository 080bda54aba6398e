"""Answer from the part of a document that is surest of its answer.

Overflow prevention (OPRM, arXiv 2505.07793): a state of fixed size holds one training length well and a book badly. So
parts of the document are read each from a fresh state, all are asked, and the one whose first answer token has the
least entropy answers; parts that refuse to answer do not count. Reading the parts costs as much as reading the document
once, and their states are kept: the next question only asks them.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.documents.streamed_text import Text, length_of
from longmamba_mlx.errors import StoppedError
from longmamba_mlx.events import Notice, Part, ReadProgress
from longmamba_mlx.filtering import FilterPlan
from longmamba_mlx.ground.sizes import format_duration, format_size
from longmamba_mlx.ground.steps import Steps, Stop
from longmamba_mlx.inference import gpu_memory
from longmamba_mlx.inference.batched import Asked, ask_all, write_all
from longmamba_mlx.inference.pieces import Ids
from longmamba_mlx.inference.prefill import prefill_steps
from longmamba_mlx.inference.progress import Clock
from longmamba_mlx.inference.reading import PrefillOptions
from longmamba_mlx.models.batches import joined, rows_of
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.session.parts import Layout, MemoryShelf, Shelf, layout_of, rows_for
from longmamba_mlx.session.reading_progress import progress_event
from longmamba_mlx.session.refusals import MOST_TOKENS, Refusals, answer_text, refusals_of
from longmamba_mlx.session.text_model import TextModel
from longmamba_mlx.tokenization.offsets import TextMap

Event = Notice | ReadProgress


@dataclass(frozen=True, slots=True)
class Choice:
    """The surest part: its number from 0, its state, and the entropy (nats) and probability of its first answer token.
    `refused`: all parts refuse to answer, and this one surest of all."""

    number: int
    state: ModelState
    entropy: float
    probability: float
    refused: bool

    @property
    def rank(self) -> tuple[bool, float]:
        return self.refused, self.entropy


@dataclass
class Parts:
    """The parts of a document of `tokens` tokens, the prompt's opening included; `text_map` says where they stand.

    `size` tokens in each part; None: as short as the shelf's room allows.
    """

    model: TextModel
    source: Text
    tokens: int
    text_map: TextMap | None = None
    shelf: Shelf = field(default_factory=MemoryShelf)
    chunk: int = 512
    size: int | None = None
    _tokenised: Ids | None = field(default=None, init=False, repr=False)
    _plans: dict[int, FilterPlan | None] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def layout(self) -> Layout:
        total = self.tokens - len(self.model.opening_ids)
        if self.size is not None:
            return layout_of(total, self.size, 0, 0, longest=self.size, most=total)
        return layout_of(total, self.model.training_length, self._initial.nbytes, self.shelf.budget)

    @property
    def nbytes(self) -> int:
        """Bytes of the states of all parts."""
        return self.layout.count * self._initial.nbytes_after(self.layout.size + len(self.model.opening_ids))

    def span(self, number: int) -> tuple[int, int]:
        """First token and end of a part, in tokens of the document with its opening."""
        start, end = self.layout.span(number)
        return start + len(self.model.opening_ids), end + len(self.model.opening_ids)

    def part(self, choice: Choice) -> Part:
        """The place of a chosen part in the text."""
        length = length_of(self.source)
        start, end = (0, length) if self.text_map is None else map(self.text_map.character, self.span(choice.number))
        places = dict.fromkeys(filter(None, map(self.source.place_at, (start, max(start, end - 1)))))
        place = " to ".join(places) or f"{start / max(length, 1):.0%} into the text"
        return Part(choice.number + 1, self.layout.count, start, end, place, round(choice.probability, 4))

    def choose(self, prompt: NDArray[np.uint32], should_stop: Stop | None = None) -> Generator[Event, None, Choice]:
        """Ask all parts, those that are not kept read first: yields ReadProgress and Notices, returns the surest.

        Raises StoppedError; what was read until then is kept.
        """
        with gpu_memory.resident():
            return (yield from self._choose(prompt, should_stop))

    def _choose(self, prompt: NDArray[np.uint32], should_stop: Stop | None) -> Generator[Event, None, Choice]:
        network, layout, shelf = self.model.network, self.layout, self._shelf
        refusals, best, clock = self._refusals, None, Clock(layout.total)
        groups = list(layout.groups(rows_for(self._initial.nbytes)))
        read = 0
        for group in groups:
            if should_stop is not None and should_stop():
                raise StoppedError("Stopped while the parts were asked.")
            state = shelf.load(group, layout, network.initial_state(len(group)))
            if state is None:
                if not read:
                    yield Notice(self._about())
                read += 1
                state = yield from self._read(group, clock, should_stop)
                shelf.save(group, layout, state)
            asking = time.monotonic()
            asked = ask_all(network, state, len(group), prompt)
            best = self._better(best, group, state, asked, refusals)
            asking = time.monotonic() - asking
            progress = clock.at(layout.span(group[-1])[1])
            yield progress_event(progress, self._place_of(group[0]))
            if read == 1 and group == groups[0] and len(groups) > 1:
                yield Notice(_times(progress.seconds_left, asking * layout.count / len(group)))
        if read:
            for line in shelf.done():
                yield Notice(line)
        assert best is not None  # noqa: S101 - a document has a part
        return best

    def _read(self, group: range, clock: Clock, should_stop: Stop | None) -> Generator[Event, None, ModelState]:
        """The states of a group of parts, each read from a fresh one."""
        ids, states = self._ids(should_stop), []
        for number in group:
            start, end = self.span(number)
            part = np.concatenate([self.model.opening_ids, np.asarray(ids[start:end], np.uint32)])
            options = PrefillOptions(self.chunk, should_stop)
            place = self._place_of(number)
            steps = Steps(prefill_steps(self.model.network, part, self._plan(len(part)), options))
            for progress in steps:
                done = min(self.layout.span(number)[0] + progress.done, self.layout.total)
                yield progress_event(clock.at(done), place)
            states.append(steps.result.state)
        return joined(states)

    def _better(
        self,
        best: Choice | None,
        group: Sequence[int],
        state: ModelState,
        asked: Asked,
        refusals: Refusals,
    ) -> Choice | None:
        """The best choice so far, and of a group that was asked. Parts that cannot be surer write nothing."""
        worst = np.inf if best is None or best.refused else best.entropy
        rows = np.flatnonzero(asked.entropy < worst).tolist()
        if not rows:
            return best
        written = write_all(
            self.model.network,
            asked,
            rows,
            max_tokens=MOST_TOKENS,
            stop_ids=self.model.stop_ids,
            is_over=self._is_over,
        )
        refused = [refusals.has(answer_text(self.model, ids)) for ids in written]
        chosen = min(range(len(rows)), key=lambda index: (refused[index], asked.entropy[rows[index]]))
        row = rows[chosen]
        if best is not None and best.rank <= (refused[chosen], float(asked.entropy[row])):
            return best
        own = rows_of(state, [row])
        own.evaluate()
        return Choice(group[row], own, float(asked.entropy[row]), float(asked.probability[row]), refused[chosen])

    def _place_of(self, number: int) -> str:
        """The place where a part begins, "" where it is not known."""
        start, _ = self.span(number)
        return "" if self.text_map is None else self.source.place_at(self.text_map.character(start))

    def _plan(self, tokens: int) -> FilterPlan | None:
        """The filter plan of a part: a long one is filtered as a document of its length."""
        if tokens not in self._plans:
            self._plans[tokens] = self.model.plan(tokens, self._ids(None))
        return self._plans[tokens]

    def _is_over(self, ids: list[int]) -> bool:
        text, ended = self.model.form.finish(self.model.tokenizer.decode(ids).lstrip())
        return ended or self.model.form.is_refusal(text)

    def _about(self) -> str:
        layout, where = self.layout, self._shelf.where
        return (
            f"{layout.count:,} parts of {layout.size:,} tokens are read, each from a fresh state: "
            f"{format_size(self.nbytes)} of states, {where}."
        )

    @cached_property
    def _shelf(self) -> Shelf:
        """The shelf, unless the states are too large for it: with attention's keys and values, or a size asked for."""
        fits = self.nbytes <= 2 * self.shelf.budget
        return self.shelf if fits else MemoryShelf(0, "read again for every question")

    @cached_property
    def _initial(self) -> ModelState:
        return self.model.network.initial_state()

    def _ids(self, should_stop: Stop | None) -> Ids:
        """The document's tokens; tokenised once, and only where a part has to be read."""
        if self._tokenised is None:
            self._tokenised = self.model.tokenise(self.source, should_stop=should_stop).ids
        return self._tokenised

    @cached_property
    def _refusals(self) -> Refusals:
        return refusals_of(self.model)


def _times(reading: float, asking: float) -> str:
    return f"About {format_duration(reading)} left to read; a question then takes about {format_duration(asking)}."
