"""A document as a model remembers it: every question starts from the same state."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.documents import Document
from longmamba_mlx.documents.streamed_text import Text, length_of, pieces_of
from longmamba_mlx.errors import DiskError, UsageError
from longmamba_mlx.events import Answer, Answered, Event, Passage, Piece, ReadProgress, Region
from longmamba_mlx.inference.decode import advance
from longmamba_mlx.inference.prefill import Ids, Reading, Run, reading_steps
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.retrieval.passages import PassageIndex
from longmamba_mlx.session.answer import Reply
from longmamba_mlx.states.state_file import StateKey, StoredState, write_state
from longmamba_mlx.tokenization.count import count
from longmamba_mlx.tokenization.offsets import TextMap, regions

if TYPE_CHECKING:
    from longmamba_mlx.documents.places import PlaceMap
    from longmamba_mlx.filtering import FilterPlan
    from longmamba_mlx.inference.prefill import Progress
    from longmamba_mlx.session.model import Model

Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Talk:
    """Where a talk stands: the state before its last question, and the ids of that question and its answer."""

    state: ModelState
    ids: NDArray[np.uint32]
    end: int | None


@dataclass
class ReadDocument:
    """A document as the model remembers it after one reading. Every question starts from this state."""

    model: Model
    source: Text | None
    """The text it was read from; None for a state that was opened alone."""
    reading: Reading
    key: StateKey
    seconds: float
    """How long the reading took; 0 for one that was reopened."""
    text_map: TextMap | None = None
    """Where tokens stand in the text; None for a state without its document."""
    nearest: Callable[[Ids], StoredState | None] | None = None
    """Finds a stored state inside the document, from which some first ids of it can be read on."""
    passages_file: Path | None = None
    """Where the index of its passages is stored, or will be; None where it lasts as long as this object."""
    talk: Talk | None = field(default=None, init=False, repr=False)
    """Where the talk about it stands: after the last answer."""
    _as_of: tuple[int, ModelState] | None = field(default=None, init=False, repr=False)
    _index: PassageIndex | None = field(default=None, init=False, repr=False)

    @classmethod
    def restored(
        cls, model: Model, document: Text | None, stored: StoredState, plan: FilterPlan | None
    ) -> ReadDocument:
        """A document from its stored state."""
        plan = plan.resolved(stored.thresholds) if plan is not None and stored.thresholds else plan
        text_map = None if stored.text_map is None else TextMap.from_array(stored.text_map)
        if text_map is not None and document is not None and not text_map.fits(stored.key.tokens, length_of(document)):
            text_map = None  # a file from elsewhere may say anything: nothing is shown beyond the text's end
        return cls(model, document, Reading(stored.state, None, plan, stored.kept), stored.key, 0.0, text_map)

    @property
    def document(self) -> Document | None:
        """The document with its text; None for a state that was opened alone, or whose text is not held in memory."""
        return self.source if isinstance(self.source, Document) else None

    @property
    def state(self) -> ModelState:
        """The model's state after the last token."""
        return self.reading.state

    @property
    def tokens(self) -> int:
        """How many tokens were read."""
        return self.state.tokens

    @property
    def title(self) -> str:
        return self.source.title if self.source is not None else "document"

    @property
    def filter(self) -> str:
        """The filter it was read with; "off" also where the document is too short to be filtered."""
        return "off" if self.key.filter == "off" else self.model.filter

    @property
    def kept(self) -> NDArray[np.uint8] | None:
        """(tokens,): the share of filterable units that kept each token, 255 = all; None where nothing was filtered."""
        return self.reading.kept

    def regions(self, count: int) -> tuple[Region, ...]:
        """The document cut into `count` stretches of equal length in tokens; () where `kept` is None."""
        if self.kept is None or self.text_map is None:
            return ()
        return regions(self.kept, self.text_map, count, self.place_at)

    def place_at(self, offset: int) -> str:
        """Where the character at `offset` stands: "chapter 12", "page 40", or ""."""
        return "" if self.source is None else self.source.place_at(offset)

    def index(self) -> PassageIndex | None:
        """Its passages; None without the text."""
        if self._index is None and self.source is not None:
            self._index = PassageIndex(self.source, self.passages_file)
        return self._index

    def ask(self, question: str, **options: object) -> Answer:
        """Answer a question; options as for `answering`. Raises UsageError for an empty one."""
        *_, last = self.answering(question, **options)  # type: ignore[arg-type]
        return cast("Answered", last).answer

    def stream(self, question: str, **options: object) -> Iterator[str]:
        """The answer in pieces, as they come."""
        for event in self.answering(question, **options):  # type: ignore[arg-type]
            if isinstance(event, Piece):
                yield event.text

    def reset_talk(self) -> None:
        """The next question with `keep` starts from the document alone."""
        self.talk = None

    def answering(
        self,
        question: str,
        *,
        keep: bool = False,
        reread: int = 0,
        as_of: str | None = None,
        max_tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
        should_stop: Stop | None = None,
    ) -> Iterator[Event]:
        """Piece after Piece, then Answered. The question is not filtered; the document state stays as it is.

        keep: goes on from the talk so far instead of the document. reread: reads that many of the most related
        passages again before answering. as_of: "chapter 12", "page 40", "50%": answers as one who has read to the end
        of it, and no further; the stretch from the nearest stored state is read first (ReadProgress).

        Raises UsageError for an empty question or a place that is not there, StoppedError while that stretch is read.
        """
        started = time.monotonic()
        form = self.model.form
        end = self._end_of(as_of, should_stop)
        talk = self.talk if keep and self.talk is not None and self.talk.end == end else None
        before, text = form.ask_after(question, again=talk is not None)
        if talk is not None:
            caught_up = advance(self.model.loaded.model, talk.state, talk.ids, should_stop)
            state = talk.state if caught_up is None else caught_up[1]
        else:
            state = self.state if end is None else (yield from self._state_at(end, should_stop))
        if reread:
            encode = self.model.tokenizer.encode
            again = self._again(question, reread, end, should_stop)
            prompt = np.concatenate([encode(before), again, encode(text)])
        else:
            prompt = self.model.tokenizer.encode(before + text)
        reply = Reply(self.model, max_tokens)
        yield from reply.stream(state, prompt, temperature, seed, should_stop)
        if reply.ids or reply.reason != "stopped":  # else the question was not read to its end
            self.talk = Talk(state, np.concatenate([prompt, np.asarray(reply.ids, np.uint32)]), end)
        passages = self._passages(question, reply.text, 3, end, should_stop) if form.found(reply.text) else ()
        # Nothing in the document has a telling word of the question or the answer: it cannot come from there.
        found = form.found(reply.text) and passages != ()
        not_in_text = self._not_in_text(reply, end, should_stop) if form.found(reply.text) else ()
        spent = time.monotonic() - started
        yield Answered(
            Answer(question, reply.text, found, passages or (), len(reply.ids), spent, reply.reason, not_in_text)
        )

    def _end_of(self, as_of: str | None, should_stop: Stop | None) -> int | None:
        """The character at which a place ends; None for the whole document."""
        if as_of is None:
            return None
        if self.source is None:
            raise UsageError("There is no text to find a place in.", hint="Open the document with its file.")
        places = self._places(should_stop)
        end = places.end_of(as_of)
        if end is None:
            known = places.labels(3)
            hint = f'Give a share such as "50%"{", or a place: " + ", ".join(known) if known else ""}.'
            raise UsageError(f"There is no {as_of!r} in {self.title}.", hint=hint)
        return end if end < length_of(self.source) else None

    def _state_at(self, end: int, should_stop: Stop | None) -> Generator[Event, None, ModelState]:
        """The state after the first `end` characters, read with the same thresholds as the whole."""
        if self._as_of is not None and self._as_of[0] == end:
            return self._as_of[1]
        model, document = self.model, cast("Text", self.source)
        if self.reading.plan is None and self.key.filter != "off":
            hint = "Load the model with the filter that this document was read with."
            raise UsageError(
                "This document was read with another filter: no place in it can be gone back to.", hint=hint
            )
        opening = model.tokenizer.encode(model.form.opening)
        ids = count(model.tokenizer, opening, pieces_of(document, end), should_stop=should_stop).ids
        if len(ids) == len(opening):
            raise UsageError(f"Nothing stands before that place in {self.title}.", hint="Name a later one.")
        stored = None if self.nearest is None else self.nearest(ids)
        plan = self.reading.plan
        start = None if stored is None else Reading(stored.state, None, plan)
        if start is not None and start.state.tokens == len(ids):
            state = start.state
        else:
            steps = reading_steps(model.loaded.model, ids, plan, Run(self.key.chunk, should_stop, "none", start))
            state = (yield from as_events(steps, self)).state
        self._as_of = end, state
        return state

    def _places(self, should_stop: Stop | None) -> PlaceMap:
        """The pages and chapters of the text; those of one that is not held are told by its index."""
        if isinstance(self.source, Document):
            return self.source.place_map
        return cast("PassageIndex", self.index()).places(should_stop)

    def _passages(
        self, question: str, answer: str, limit: int, end: int | None, should_stop: Stop | None = None
    ) -> tuple[Passage, ...] | None:
        """Related passages from the first `end` characters; None without the text, or without room to list them."""
        index = self.index()
        try:
            return None if index is None else index.search(question, answer, limit, end=end, should_stop=should_stop)
        except DiskError:
            return None

    def _not_in_text(self, reply: Reply, end: int | None, should_stop: Stop | None) -> tuple[str, ...]:
        """Numbers and codes of an answer that the first `end` characters do not have; () where nobody can tell."""
        index = self.index()
        whole = reply.text if reply.reason == "stop" else reply.text.rpartition(" ")[0]  # the last word may be cut
        try:
            return () if index is None else index.not_in_text(whole, end=end, should_stop=should_stop)
        except DiskError:
            return ()

    def _again(self, question: str, count: int, end: int | None, should_stop: Stop | None) -> NDArray[np.uint32]:
        """The ids of the `count` passages that have most to do with a question, in the document's order."""
        found = sorted(self._passages(question, "", count, end, should_stop) or (), key=lambda passage: passage.start)
        text = self.model.form.reread([passage.text for passage in found])
        return self.model.tokenizer.encode(text, as_text=True)

    def thresholds(self) -> list[NDArray[np.float32] | None]:
        """Per layer the thresholds that were used, None where nothing was filtered."""
        plan = self.reading.plan
        return [] if plan is None else [plan.thresholds(i) for i in range(len(plan.layers))]

    def info(self) -> dict[str, str | int | float | bool | None]:
        """What a list of remembered documents shows."""
        return describe(self.model, self.source, self.reading.plan, round(self.seconds, 3))

    def save(self, path: str | Path) -> None:
        """Write the document state as one file, atomically. Raises DiskError."""
        text_map = None if self.text_map is None else self.text_map.array()
        write_state(Path(path), self.key, self.state, self.thresholds(), self.info(), kept=self.kept, text_map=text_map)


def as_events(steps: Generator[Progress, None, Reading], book: ReadDocument) -> Generator[Event, None, Reading]:
    """A reading's progress as events, with its place in the document."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            reading: Reading = end.value
            return reading
        yield progress_event(step, book.source, book.text_map)


def progress_event(step: Progress, document: Text | None, text_map: TextMap | None) -> ReadProgress:
    """Progress as the event, with the place in the document that has been come to."""
    place = ""
    if document is not None and text_map is not None:
        place = document.place_at(text_map.character(step.done))
    return ReadProgress(step.done, step.total, step.tokens_per_second, step.seconds_left, step.memory, place)


def describe(
    model: Model, document: Text | None, plan: FilterPlan | None, seconds: float
) -> dict[str, str | int | float | bool | None]:
    """What a list of remembered documents shows of one."""
    return {
        "title": "document" if document is None else document.title,
        "source": "" if document is None else document.source,
        "characters": 0 if document is None else length_of(document),
        "model": model.name,
        "filter": "off" if plan is None else model.filter,
        "settings": "" if plan is None else plan.policy.canonical(),
        "seconds": seconds,
        "read": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
