"""A document that a model has read: every question starts from its state."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, cast

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.documents import Document
from longmamba_mlx.documents.streamed_text import Text, length_of
from longmamba_mlx.errors import UsageError
from longmamba_mlx.events import Answer, Answered, Event, Part, Passage, Piece, Region
from longmamba_mlx.ground.steps import Stop
from longmamba_mlx.inference.decode import advance
from longmamba_mlx.inference.pieces import Ids
from longmamba_mlx.inference.prefill import prefill_steps
from longmamba_mlx.inference.reading import PrefillOptions, Reading
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.retrieval.passages import PassageIndex
from longmamba_mlx.session.answer import Reply
from longmamba_mlx.session.asking import AskOptions, check_asking
from longmamba_mlx.session.evidence import Evidence, judged
from longmamba_mlx.session.parts import MemoryShelf, Shelf
from longmamba_mlx.session.reading_progress import reading_events
from longmamba_mlx.session.surest import Choice, Parts
from longmamba_mlx.session.text_model import TextModel
from longmamba_mlx.states.state_file import Info, StateKey, StoredState, write_state
from longmamba_mlx.tokenization.offsets import TextMap, regions

if TYPE_CHECKING:
    from longmamba_mlx.documents.places import PlaceMap
    from longmamba_mlx.filtering import FilterPlan


@dataclass(frozen=True, slots=True)
class Conversation:
    """The state before the last question of a conversation, the ids of that question and its answer, and the character
    that the document was read to (None: its end)."""

    state: ModelState
    ids: NDArray[np.uint32]
    end: int | None


@dataclass
class ReadDocument:
    """A document after prefill. Every question starts from its state."""

    model: TextModel
    source: Text | None
    """The text it was read from; None for a state that was opened without it."""
    reading: Reading
    key: StateKey
    seconds: float
    """How long the reading took; 0 for a document restored from its state."""
    text_map: TextMap | None = None
    """Where tokens stand in the text; None for a state without its document."""
    nearest: Callable[[Ids], StoredState | None] | None = None
    """Finds the last stored state inside the document that some first ids of it can be read on from."""
    passages_file: Path | None = None
    """Where the index of its passages is stored; None: only as long as this object lives."""
    shelf: Shelf = field(default_factory=MemoryShelf, repr=False)
    """Where the states of its parts are kept, once a question is put to them."""
    conversation: Conversation | None = field(default=None, init=False, repr=False)
    """Where a question with `keep` goes on: after the last answer."""
    _as_of: tuple[int, ModelState] | None = field(default=None, init=False, repr=False)
    _index: PassageIndex | None = field(default=None, init=False, repr=False)
    _parts: Parts | None = field(default=None, init=False, repr=False)

    @classmethod
    def restored(
        cls,
        model: TextModel,
        document: Text | None,
        stored: StoredState,
        plan: FilterPlan | None,
        *,
        nearest: Callable[[Ids], StoredState | None] | None = None,
        passages_file: Path | None = None,
        shelf: Shelf | None = None,
    ) -> ReadDocument:
        """A document from its stored state, read with `plan`."""
        plan = plan.resolved(stored.thresholds) if plan is not None and stored.thresholds else plan
        text_map = None if stored.text_map is None else TextMap.from_array(stored.text_map)
        if text_map is not None and document is not None and not text_map.fits(stored.key.tokens, length_of(document)):
            text_map = None  # a file from elsewhere may hold anything: nothing is shown beyond the text's end
        reading = Reading(stored.state, None, plan, stored.kept)
        shelf = MemoryShelf() if shelf is None else shelf
        return cls(model, document, reading, stored.key, 0.0, text_map, nearest, passages_file, shelf)

    @property
    def document(self) -> Document | None:
        """The document with its text; None for a state opened without it, or for a text not held in memory."""
        return self.source if isinstance(self.source, Document) else None

    @property
    def state(self) -> ModelState:
        """The model's state after the last token."""
        return self.reading.state

    @property
    def tokens(self) -> int:
        """Number of tokens read."""
        return self.state.tokens

    @property
    def title(self) -> str:
        """The title of the document; "document" for a state opened without it."""
        return self.source.title if self.source is not None else "document"

    @property
    def filter(self) -> str:
        """The filter it was read with; "off" if the document was too short to be filtered."""
        return "off" if self.key.filter == "off" else self.model.filter

    @property
    def kept(self) -> NDArray[np.uint8] | None:
        """(tokens,): the share of filterable units that kept each token, 255 = all; None if nothing was filtered."""
        return self.reading.kept

    @property
    def known_questions(self) -> tuple[str, ...]:
        """The only questions a demonstration model can answer, each with {name} in it; () for any question."""
        return self.model.form.known

    def regions(self, count: int) -> tuple[Region, ...]:
        """Split the document into `count` regions of equal length in tokens; () if `kept` is None."""
        if self.kept is None or self.text_map is None:
            return ()
        return regions(self.kept, self.text_map, count, self.place_at)

    def place_at(self, offset: int) -> str:
        """Return the place of the character at `offset`: "chapter 12", "page 40", or ""."""
        return "" if self.source is None else self.source.place_at(offset)

    def index(self) -> PassageIndex | None:
        """The index of its passages; None without the text."""
        if self._index is None and self.source is not None:
            self._index = PassageIndex(self.source, self.passages_file)
        return self._index

    def ask(self, question: str, **options: Unpack[AskOptions]) -> Answer:
        """Answer a question; options as for `answering`. Raises UsageError for an empty one."""
        *_, last = self.answering(question, **options)
        return cast("Answered", last).answer

    def stream(self, question: str, **options: Unpack[AskOptions]) -> Iterator[str]:
        """Yield the answer in pieces as they are generated; options as for `answering`."""
        for event in self.answering(question, **options):
            if isinstance(event, Piece):
                yield event.text

    def find_passages(
        self, query: str, count: int = 3, *, as_of: str | None = None, should_stop: Stop | None = None
    ) -> tuple[Passage, ...]:
        """Search the text, without the model, for the passages nearest to `query`, up to the end of the place `as_of`.

        Raises UsageError for an empty query, an unknown place, or a document whose text is not open.
        """
        index = self.index()
        if index is None:
            raise UsageError("There is no text to search in.", hint="Open the document with its file.")
        if not query.strip():
            raise UsageError("The query is empty.", hint="Name what to search for.")
        return index.nearest(query, count, end=self._end_of(as_of, should_stop), should_stop=should_stop)

    def reset_conversation(self) -> None:
        """Let the next question with `keep` start from the document alone."""
        self.conversation = None

    def answering(
        self,
        question: str,
        *,
        keep: bool = False,
        reread: int = 0,
        as_of: str | None = None,
        surest: bool = False,
        part_tokens: int | None = None,
        max_tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
        should_stop: Stop | None = None,
    ) -> Iterator[Event]:
        """Yield the answer's Pieces, then Answered. The question is not filtered; the document state is not changed.

        keep: continue the conversation instead of starting from the document. reread: read that many of the most
        related passages again before answering. as_of ("chapter 12", "page 40", "50%"): answer from the document up to
        the end of that place; the stretch from the nearest stored state is read first (ReadProgress). surest: ask the
        parts of the document, `part_tokens` each, read from a fresh state, and answer from the most certain one
        (ReadProgress, Notices; see `surest`); a later question with `keep` continues from that part.

        A demonstration model is not asked questions it was not trained for: `Answer.reason` is then "demo". Without an
        answer, the passages are those that a text search finds nearest to the question.

        Raises UsageError for an empty question, an unknown place or options that exclude each other, StoppedError while
        such a stretch or the parts are read.
        """
        check_asking(keep=keep, reread=reread, as_of=as_of, surest=surest, part_tokens=part_tokens)
        started, form = time.monotonic(), self.model.form
        end = self._end_of(as_of, should_stop)
        evidence = Evidence(self.index(), end, should_stop)
        last = self.conversation if keep and self.conversation and self.conversation.end == end else None
        known = form.as_known(question)
        before, text = form.ask_after(known or question, again=last is not None)
        if known is None:
            nearest, example = evidence.nearest(question), form.example(question)
            spent = time.monotonic() - started
            yield Answered(Answer(question, "", False, nearest, 0, spent, "stop", reason="demo", example=example))
            return
        state = yield from self._start(last, end, should_stop)
        prompt = self._prompt(before, text, evidence.to_reread(question, reread) if reread else ())
        choice, part = (yield from self._surest(prompt, part_tokens, should_stop)) if surest else (None, None)
        state = state if choice is None else choice.state
        reply = Reply(self.model, max_tokens)
        yield from reply.stream(state, prompt, temperature, seed, should_stop)
        if reply.ids or reply.reason != "stopped":  # else the question was not read to its end
            self.conversation = Conversation(state, np.concatenate([prompt, np.asarray(reply.ids, np.uint32)]), end)
        # A demonstration model knows facts about names only: of a name that the text has not, it can know nothing.
        found = form.found(reply.text) and not (form.known and evidence.missing_names(question))
        found = found and (choice is None or not choice.refused)
        found, passages, not_in_text, reason = judged(reply, found, question, evidence, part)
        spent, part = time.monotonic() - started, part if found else None
        yield Answered(
            Answer(question, reply.text, found, passages, len(reply.ids), spent, reply.reason, not_in_text, reason,
                   part=part)
        )  # fmt: skip

    def _start(
        self, last: Conversation | None, end: int | None, should_stop: Stop | None
    ) -> Generator[Event, None, ModelState]:
        """The state that a question is read on top of: after the `last` turn, or after the document's first `end`
        characters (None: all)."""
        if last is not None:
            caught_up = advance(self.model.network, last.state, last.ids, should_stop)
            return last.state if caught_up is None else caught_up[1]
        return self.state if end is None else (yield from self._state_at(end, should_stop))

    def _prompt(self, before: str, text: str, passages: tuple[Passage, ...]) -> NDArray[np.uint32]:
        """The ids of a question: what goes `before` it, passages that are read again, its `text`."""
        encode = self.model.tokenizer.encode
        if not passages:
            return encode(before + text)
        again = self.model.form.reread([passage.text for passage in passages])
        return np.concatenate([encode(before), encode(again, as_text=True), encode(text)])

    def _end_of(self, as_of: str | None, should_stop: Stop | None) -> int | None:
        """The character where the place `as_of` ends; None for the whole document."""
        if as_of is None:
            return None
        if self.source is None:
            raise UsageError(
                "Places are found in the text, which is not open.", hint="Open the document with its file."
            )
        places = self._places(should_stop)
        end = places.end_of(as_of)
        if end is None:
            known = places.labels(3)
            hint = f'Give a share such as "50%"{", or a place: " + ", ".join(known) if known else ""}.'
            raise UsageError(f"There is no {as_of!r} in {self.title}.", hint=hint)
        return end if end < length_of(self.source) else None

    def _state_at(self, end: int, should_stop: Stop | None) -> Generator[Event, None, ModelState]:
        """The state after the first `end` characters, read with the thresholds of the whole document."""
        if self._as_of is not None and self._as_of[0] == end:
            return self._as_of[1]
        model, document = self.model, cast("Text", self.source)
        if self.reading.plan is None and self.key.filter != "off":
            hint = "Load the model with the filter that this document was read with."
            raise UsageError(
                "This document was read with another filter: it cannot be read to a place inside it.", hint=hint
            )
        ids = model.tokenise(document, end=end, should_stop=should_stop).ids
        if len(ids) == len(model.opening_ids):
            raise UsageError(f"There is no text before that place in {self.title}.", hint="Name a later one.")
        stored = None if self.nearest is None else self.nearest(ids)
        plan = self.reading.plan
        start = None if stored is None else Reading(stored.state, None, plan)
        if start is not None and start.state.tokens == len(ids):
            state = start.state
        else:
            options = PrefillOptions(self.key.chunk, should_stop, start)
            steps = prefill_steps(model.network, ids, plan, options)
            state = (yield from reading_events(steps, document, self.text_map)).state
        self._as_of = end, state
        return state

    def _surest(
        self, prompt: NDArray[np.uint32], part_tokens: int | None, should_stop: Stop | None
    ) -> Generator[Event, None, tuple[Choice, Part] | tuple[None, None]]:
        """The part of the document that is surest of its answer; (None, None) where there is only one."""
        if self._parts is None or self._parts.size != part_tokens:
            if self.source is None:
                hint = "Open the document with its file."
                raise UsageError("Its parts are read from the text, which is not open.", hint=hint)
            self._parts = Parts(
                self.model, self.source, self.tokens, self.text_map, self.shelf, self.key.chunk, part_tokens
            )
        if self._parts.layout.count == 1:
            return None, None
        choice = yield from self._parts.choose(prompt, should_stop)
        return choice, self._parts.part(choice)

    def _places(self, should_stop: Stop | None) -> PlaceMap:
        """The pages and chapters of the text; for one that is not held in memory, from its passage index."""
        if isinstance(self.source, Document):
            return self.source.place_map
        return cast("PassageIndex", self.index()).places(should_stop)

    def thresholds(self) -> list[NDArray[np.float32] | None]:
        """Return the thresholds (units,) of each layer, None for a layer that was not filtered; [] without a filter."""
        return self.reading.thresholds()

    def info(self) -> Info:
        """Return the row of this document in a list of stored states."""
        return self.model.describe(self.source, self.reading.plan, self.seconds)

    def save(self, path: str | Path) -> None:
        """Write the document state as one file, atomically. Raises DiskError."""
        text_map = None if self.text_map is None else self.text_map.array()
        write_state(Path(path), self.key, self.state, self.thresholds(), self.info(), kept=self.kept, text_map=text_map)
