"""A document becomes a read document: remembered, gone on with, or read, and then remembered."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from longmamba_mlx.documents.streamed_text import Text, digest_of, length_of
from longmamba_mlx.errors import DiskError, LongMambaError, NumericError, StateError, StoppedError
from longmamba_mlx.events import Counted, Event, Notice, ReadDone
from longmamba_mlx.filtering import FilterPlan
from longmamba_mlx.inference.prefill import Ids, Reading, Run
from longmamba_mlx.paths import state_folder
from longmamba_mlx.session.model import Model
from longmamba_mlx.session.read_document import ReadDocument, describe, progress_event
from longmamba_mlx.states.checkpoints import Waypoints, nearest_place
from longmamba_mlx.states.size_limit import make_room
from longmamba_mlx.states.state_file import StateKey, StoredState, read_state
from longmamba_mlx.states.store import StateStore
from longmamba_mlx.tokenization.count import CountedText

_AGAIN = "The same command reads it again from the beginning."
_LONG = 20_000_000  # characters: some ten seconds of counting
# Fields of a key that another length of the same document, read in the same way, shares with it.
_SAME = ("reader", "tokenizer", "model", "config", "quantisation", "calibration", "chunk", "kernel", "dtype", "opening",
         "format_version")  # fmt: skip


@dataclass
class Opening:
    """Opens documents with one model. `notes` collects what `open` tells as Notice."""

    model: Model
    chunk: int = 512
    save: bool = True
    should_stop: Callable[[], bool] | None = None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = StateStore(state_folder(), warn=self.notes.append)
        self._like = self.model.loaded.model.initial_state()
        self._before = 0  # tokens of the document that need not be read now

    def open(self, document: Text) -> Generator[Event, None, ReadDocument]:
        """Counted, ReadProgress where something is read, Notice, ReadDone; returns the read document.

        Raises StoppedError after writing a checkpoint, and whatever reading raises.
        """
        started = time.monotonic()
        self.notes.extend(document.notes)
        book = self._remembered(document)
        stored = book is not None
        if book is not None:
            yield Counted(document.title, book.key.tokens)
        else:
            book, stored = yield from self._read(document)
        yield from self._told()
        yield ReadDone(
            title=document.title,
            tokens=book.tokens,
            seconds=time.monotonic() - started,
            state_bytes=book.state.nbytes,
            reopened=book.seconds == 0.0,
            stored=book.key.digest() if stored else None,
            filter=book.filter,
            before=self._before,
            digest=document.digest,
        )
        return book

    def _remembered(self, document: Text) -> ReadDocument | None:
        """What is stored of this document, found without tokenising it."""
        plans: dict[int, FilterPlan | None] = {}
        for key in self.store.stored_keys():
            if key.document != document.digest or not self._can_plan(key.tokens):
                continue
            if key.tokens not in plans:
                plans[key.tokens] = self.model.plan(key.tokens)
            plan = plans[key.tokens]
            if key == self.model.key(document, key.tokens, plan, self.chunk):
                stored = self.store.load(key, like=self._like)
                return None if stored is None else self._restored(document, stored, plan)
        return None

    def _can_plan(self, tokens: int) -> bool:
        """Whether the plan is known without the text: a model that was never measured is measured on it."""
        model = self.model
        return model.filter == "off" or model.calibration is not None or tokens <= model.training_length

    def _restored(self, document: Text, stored: StoredState, plan: FilterPlan | None) -> ReadDocument:
        book = ReadDocument.restored(self.model, document, stored, plan)
        book.nearest = self._nearest(stored.key)
        if self.save:
            book.passages_file = self.store.passages_path(stored.key)
        return book

    def _nearest(self, key: StateKey) -> Callable[[Ids], StoredState | None]:
        return partial(self._place, key)

    def _place(self, key: StateKey, ids: Ids) -> StoredState | None:
        return nearest_place(self.store.places_folder(key), key, ids, self._like, self.notes.append)

    def _read(self, document: Text) -> Generator[Event, None, tuple[ReadDocument, bool]]:
        if length_of(document) >= _LONG:
            yield Notice(f"Counting the tokens of {length_of(document) / 1e6:,.0f} million characters first.")
        counted = self.model.count(document, should_stop=self.should_stop)
        total = len(counted.ids)
        yield Counted(document.title, total)
        if not self._can_plan(total):
            for step in self.model.measuring(counted.ids):
                yield replace(progress_event(step, None, None), place="measuring the model, once")
        plan = self.model.plan(total, counted.ids)
        key = self.model.key(document, total, plan, self.chunk)
        stored = self.store.load(key, like=self._like)  # one whose header was broken is set aside here
        if stored is not None:
            return self._restored(document, stored, plan), True
        self.notes.extend(() if plan is None else plan.notices)
        self.notes.extend(self._growth(total))
        points = self._waypoints(document, key, counted, plan)
        start = self._start(points, document, counted, plan)
        yield from self._told()
        book = yield from self._run(document, counted, plan, points, start)
        book.nearest = self._nearest(key)
        kept = self.save and self._remember(book, points)
        if kept:
            book.passages_file = self.store.passages_path(key)
            yield from self._list_passages(book)
            yield from self._make_room(key)
        return book, kept

    def _growth(self, tokens: int) -> Iterator[str]:
        """What a hybrid's attention will hold of so many tokens, where that is not bounded."""
        each = self._like.nbytes_per_token
        if each and self._like.window is None:
            yield (f"The attention layers of {self.model.name} hold {each / 1000:,.1f} kB a token, "
                   f"{each * tokens / 1e6:,.1f} MB for this text; --attention-window N bounds that.")  # fmt: skip

    def _waypoints(self, document: Text, key: StateKey, counted: CountedText, plan: FilterPlan | None) -> Waypoints:
        return Waypoints(self.store, key, counted.ids, describe(self.model, document, plan, 0.0), self.notes.append,
                         self._like.nbytes)  # fmt: skip

    def _start(
        self, points: Waypoints, document: Text, counted: CountedText, plan: FilterPlan | None
    ) -> Reading | None:
        """The state to go on from: this reading's checkpoint, or one of the same document when it was shorter."""
        if not self.save or (plan is not None and plan.needs_document):
            return None
        found = points.begin(self._like) or self._grown(points, document, counted, plan)
        if found is None:
            return None
        self._before = found.state.tokens
        self.notes.append(f"Going on from token {self._before:,} of {len(counted.ids):,}.")
        return Reading(found.state, None, plan, found.kept)

    def _grown(
        self, points: Waypoints, document: Text, counted: CountedText, plan: FilterPlan | None
    ) -> StoredState | None:
        for key in self._shorter(points.key, document):
            try:
                old = read_state(self.store.path(key), key=key, like=self._like)
            except StateError:
                continue
            if not _filters_alike(old, plan):
                why = "the filter treats its new length differently"
                self.notes.append(f"{document.title} has grown and is read again: {why}.")
                return None
            found = self._place(key, counted.ids)
            if found is not None:
                points.begin_at(found.state.tokens)
                kept = None if old.kept is None else old.kept[: found.state.tokens]
                return replace(found, kept=kept)
        return None

    def _shorter(self, wanted: StateKey, document: Text) -> Iterator[StateKey]:
        """Keys of stored states whose document has this one's name and is how it begins, the longest first."""
        found = []
        for entry in self.store.list():
            key, info = entry.key, entry.info
            if key is None or info is None or entry.unfinished or key.tokens >= wanted.tokens:
                continue
            length = info.get("characters")
            if not isinstance(length, int) or not 0 < length < length_of(document):
                continue
            if info.get("title") != document.title:
                continue
            if any(getattr(key, name) != getattr(wanted, name) for name in _SAME):
                continue
            if digest_of(document, length) == key.document:
                found.append(key)
        yield from sorted(found, key=lambda key: -key.tokens)

    def _run(
        self,
        document: Text,
        counted: CountedText,
        plan: FilterPlan | None,
        points: Waypoints,
        start: Reading | None,
    ) -> Generator[Event, None, ReadDocument]:
        follow = points.follow if self.save else None
        steps = self.model.reading_of(document, counted, plan, Run(self.chunk, self.should_stop, "none", start, follow))
        whole = False
        try:
            while True:
                try:
                    step = next(steps)
                except StopIteration as end:
                    book: ReadDocument = end.value
                    whole = True
                    return book
                yield progress_event(step, document, counted.text_map)
                yield from self._told()
        except StoppedError:
            points.write()
            hint = f"The same command goes on from token {points.saved:,}." if points.saved else _AGAIN
            raise StoppedError("The reading was stopped.", hint=hint) from None
        finally:
            if not whole:  # stopped, interrupted, or nobody listens any more
                with suppress(NumericError):
                    points.write()

    def _remember(self, book: ReadDocument, points: Waypoints) -> bool:
        """Store the state; a full disk costs the memory of it, never the reading."""
        text_map = None if book.text_map is None else book.text_map.array()
        try:
            self.store.save(book.key, book.state, book.thresholds(), book.info(), kept=book.kept, text_map=text_map,
                            ids=points.digest())  # fmt: skip
        except DiskError as error:
            self.notes.append(f"Not remembered: {error} {error.hint or ''}".rstrip())
            return False
        try:
            points.write_places()
        except DiskError as error:
            self.notes.append(f"Remembered, but not the places inside it: {error}")
        points.finish()
        return True

    def _list_passages(self, book: ReadDocument) -> Iterator[Notice]:
        """Now, so that no question has to wait for it. The document is remembered already, whatever happens here."""
        if book.source is None or (index := book.index()) is None:
            return
        if length_of(book.source) >= _LONG:
            yield Notice(f"Listing the passages of {length_of(book.source) / 1e6:,.0f} million characters.")
        try:
            index.places(self.should_stop)
        except StoppedError:
            raise
        except LongMambaError as error:
            yield Notice(str(error))

    def _make_room(self, key: StateKey) -> Iterator[Notice]:
        try:
            for line in make_room(self.store, keep=key):
                yield Notice(line)
        except DiskError as error:
            yield Notice(str(error))

    def _told(self) -> Iterator[Notice]:
        while self.notes:
            yield Notice(self.notes.pop(0))


def _filters_alike(old: StoredState, plan: FilterPlan | None) -> bool:
    """Whether every token of the old document was filtered as this plan would filter it."""
    if plan is None or not old.thresholds:
        return plan is None and not old.thresholds
    if plan.policy.protect_last or old.info.get("settings") != plan.policy.canonical():
        return False
    new = [plan.thresholds(index) for index in range(len(plan.layers))]
    return len(new) == len(old.thresholds) and all(
        (a is None) == (b is None) and (a is None or b is None or np.array_equal(a, b))
        for a, b in zip(new, old.thresholds, strict=True)
    )
