"""Open a document: restore a stored state, resume a checkpoint, or prefill and save."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TypeAlias

from longmamba_mlx.documents.streamed_text import Text, length_of
from longmamba_mlx.errors import DiskError, LongMambaError, NumericError, StoppedError
from longmamba_mlx.events import Counted, Event, Notice, ReadDone
from longmamba_mlx.filtering import FilterPlan
from longmamba_mlx.ground.sizes import format_size
from longmamba_mlx.ground.steps import Steps, Stop
from longmamba_mlx.inference.pieces import Ids
from longmamba_mlx.inference.prefill import chunk_or_default, prefill_steps
from longmamba_mlx.inference.progress import Progress
from longmamba_mlx.inference.reading import PrefillOptions, Reading
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.paths import state_folder
from longmamba_mlx.retrieval.passages import PassageIndex
from longmamba_mlx.session.parts import MemoryShelf, Shelf, StoredShelf
from longmamba_mlx.session.read_document import ReadDocument
from longmamba_mlx.session.reading_progress import progress_event, reading_events
from longmamba_mlx.session.resume import PrefillTask, find_start
from longmamba_mlx.session.text_model import TextModel
from longmamba_mlx.states.checkpoints import CheckpointWriter, nearest_place
from longmamba_mlx.states.size_limit import make_room
from longmamba_mlx.states.state_file import StateKey, StoredState
from longmamba_mlx.states.store import StateStore
from longmamba_mlx.tokenization.count import left_out_line

Prefill: TypeAlias = Callable[[TextModel, PrefillTask, PrefillOptions], Generator[Progress, None, Reading]]
"""How a document that is not remembered is read."""

_AGAIN = "The same command reads it again from the beginning."
_LONG = 20_000_000  # characters: about ten seconds of counting


def read_alone(model: TextModel, task: PrefillTask, options: PrefillOptions) -> Generator[Progress, None, Reading]:
    """Read with this process alone."""
    return prefill_steps(model.network, task.counted.ids, task.plan, options)


def count_and_plan(
    model: TextModel, document: Text, chunk: int, should_stop: Stop | None = None
) -> Generator[Event, None, PrefillTask]:
    """Tokenise a document, calibrate a model that never was, and plan the filter."""
    if length_of(document) >= _LONG:
        yield Notice(f"Counting the tokens of {length_of(document) / 1e6:,.0f} million characters first.")
    counted = model.count(document, should_stop=should_stop)
    total = len(counted.ids)
    yield Counted(document.title, total)
    if counted.left_out:
        yield Notice(left_out_line(model.name, counted.left_out))
    if not model.can_plan(total):
        for step in model.calibration_steps(counted.ids):
            yield progress_event(step, "measuring the model, once")
    plan = model.plan(total, counted.ids)
    return PrefillTask(document, counted, plan, model.key(document.digest, total, plan, chunk))


@dataclass(frozen=True, slots=True)
class _Opened:
    """A document that is open, whether its state is stored, and how many of its tokens were read before."""

    book: ReadDocument
    stored: bool
    before: int = 0


def open_document(
    model: TextModel,
    document: Text,
    *,
    chunk: int | None = None,
    save: bool = True,
    should_stop: Stop | None = None,
    prefill: Prefill = read_alone,
) -> Generator[Event, None, ReadDocument]:
    """Yield Counted, ReadProgress while the document is read, Notices, ReadDone; return the read document.

    Raises StoppedError after writing a checkpoint, and whatever reading raises.
    """
    started = time.monotonic()
    opener = _Opener(model, chunk_or_default(chunk), save, should_stop, list(document.notes), prefill)
    opened = yield from opener.open(document)
    yield from opener.notices()
    yield ReadDone(
        title=document.title,
        tokens=opened.book.tokens,
        seconds=time.monotonic() - started,
        state_bytes=opened.book.state.nbytes,
        reopened=opened.book.seconds == 0.0,
        stored=opened.book.key.digest() if opened.stored else None,
        filter=opened.book.filter,
        before=opened.before,
        digest=document.digest,
    )
    return opened.book


@dataclass
class _Opener:
    """The four steps of opening. `notes` collects what `notices` yields."""

    model: TextModel
    chunk: int
    save: bool
    should_stop: Stop | None
    notes: list[str]
    prefill: Prefill
    store: StateStore = field(init=False)
    like: ModelState = field(init=False)

    def __post_init__(self) -> None:
        self.store = StateStore(state_folder(), warn=self.notes.append)
        self.like = self.model.network.initial_state()

    def open(self, document: Text) -> Generator[Event, None, _Opened]:
        """Find and restore the stored state; else resume or start a prefill, and save its state."""
        self.store.make_private()
        found = self._find(document)
        book = None if found is None else self._restore(document, *found)
        if book is not None:
            yield Counted(document.title, book.key.tokens)
            return _Opened(book, stored=True)
        task = yield from count_and_plan(self.model, document, self.chunk, self.should_stop)
        book = self._restore(document, task.key, task.plan)  # a broken header hid it from `_find`
        if book is not None:
            return _Opened(book, stored=True)
        writer = self._writer(task)
        start = self._resume(task, writer)
        yield from self.notices()
        return (yield from self._prefill_and_save(task, writer, start))

    def notices(self) -> Iterator[Notice]:
        """Yield what `notes` holds, and empty it."""
        while self.notes:
            yield Notice(self.notes.pop(0))

    def _find(self, document: Text) -> tuple[StateKey, FilterPlan | None] | None:
        """The key of the stored state of this document, and its plan, without tokenising the document."""
        plan_of = cache(self.model.plan)
        for key in self.store.stored_keys():
            if key.document != document.digest or not self.model.can_plan(key.tokens):
                continue
            plan = plan_of(key.tokens)
            if self.model.would_store(key, plan, self.chunk):
                return key, plan
        return None

    def _restore(self, document: Text, key: StateKey, plan: FilterPlan | None) -> ReadDocument | None:
        """The document from its stored state; None without a valid one."""
        stored = self.store.load(key, like=self.like)
        if stored is None:
            return None
        passages_file = self.store.passages_path(key) if self.save else None
        return ReadDocument.restored(
            self.model,
            document,
            stored,
            plan,
            nearest=partial(self._nearest, key),
            passages_file=passages_file,
            shelf=self._shelf(key, stored=self.save),
        )

    def _shelf(self, key: StateKey, *, stored: bool) -> Shelf:
        return StoredShelf(self.store, key) if stored else MemoryShelf()

    def _nearest(self, key: StateKey, ids: Ids) -> StoredState | None:
        return nearest_place(self.store.places_folder(key), key, ids, self.like, self.notes.append)

    def _writer(self, task: PrefillTask) -> CheckpointWriter:
        info = self.model.describe(task.document, task.plan, 0.0)
        return CheckpointWriter(self.store, task.key, task.counted.ids, info, self.notes.append, self.like.nbytes)

    def _resume(self, task: PrefillTask, writer: CheckpointWriter) -> Reading | None:
        """The reading to resume from; None to start at the first token."""
        total = len(task.counted.ids)
        self.notes.extend(() if task.plan is None else task.plan.notices)
        self.notes.extend(self._growth(total))
        self.model.require_memory(total, self.chunk)
        start = find_start(task, writer, self.store, self.like, self.notes.append) if self.save else None
        if start is not None:
            self.notes.append(f"Resuming at token {start.state.tokens:,} of {total:,}.")
        return start

    def _growth(self, tokens: int) -> Iterator[str]:
        """How much memory a hybrid's unbounded attention will take for `tokens` tokens."""
        each = self.like.nbytes_per_token
        if each:
            yield (
                f"The attention layers of {self.model.name} hold {format_size(each)} a token, "
                f"{format_size(each * tokens)} for this text; --attention-window N bounds that."
            )

    def _prefill_and_save(
        self, task: PrefillTask, writer: CheckpointWriter, start: Reading | None
    ) -> Generator[Event, None, _Opened]:
        """Read what `start` has not, store the state, and list the passages."""
        started = time.monotonic()
        reading = yield from self._prefill(task, writer, start)
        seconds = time.monotonic() - started
        stored = self.save and self._store(task, reading, seconds, writer)
        book = ReadDocument(
            self.model,
            task.document,
            reading,
            task.key,
            seconds,
            task.counted.text_map,
            nearest=partial(self._nearest, task.key),
            passages_file=self.store.passages_path(task.key) if stored else None,
            shelf=self._shelf(task.key, stored=stored),
        )
        if stored:
            yield from self._list_passages(task.document, book.index())
            yield from self._make_room(task.key)
        return _Opened(book, stored, 0 if start is None else start.state.tokens)

    def _prefill(
        self, task: PrefillTask, writer: CheckpointWriter, start: Reading | None
    ) -> Generator[Event, None, Reading]:
        """Read the document; however that ends early, write a checkpoint."""
        on_chunk = writer.on_chunk if self.save else None
        options = PrefillOptions(self.chunk, self.should_stop, start, on_chunk)
        steps = self.prefill(self.model, task, options)
        work = Steps(reading_events(steps, task.document, task.counted.text_map))
        complete = False
        try:
            for event in work:
                yield event
                yield from self.notices()
            complete = True
            return work.result
        except StoppedError:
            writer.write()
            hint = f"The same command resumes at token {writer.saved:,}." if writer.saved else _AGAIN
            raise StoppedError("The reading was stopped.", hint=hint) from None
        finally:
            if not complete:  # stopped, interrupted, or the caller has closed this generator
                with suppress(NumericError):
                    writer.write()

    def _store(self, task: PrefillTask, reading: Reading, seconds: float, writer: CheckpointWriter) -> bool:
        """Store the state. A full disk costs the stored state, never the reading."""
        info = self.model.describe(task.document, reading.plan, seconds)
        text_map = task.counted.text_map.array()
        try:
            self.store.save(
                task.key,
                reading.state,
                reading.thresholds(),
                info,
                kept=reading.kept,
                text_map=text_map,
                ids=writer.digest(),
            )
        except DiskError as error:
            self.notes.append(f"Not remembered: {error} {error.hint or ''}".rstrip())
            return False
        try:
            writer.write_places()
        except DiskError as error:
            self.notes.append(f"Remembered, but not the places inside it: {error}")
        writer.finish()
        return True

    def _list_passages(self, document: Text, index: PassageIndex | None) -> Iterator[Notice]:
        """Build the passage index now, so that no question waits for it. The state is stored whatever happens here."""
        if index is None:
            return
        if length_of(document) >= _LONG:
            yield Notice(f"Listing the passages of {length_of(document) / 1e6:,.0f} million characters.")
        try:
            index.places(self.should_stop)
        except StoppedError:
            raise
        except LongMambaError as error:
            yield Notice(str(error))

    def _make_room(self, key: StateKey) -> Iterator[Notice]:
        """Delete the states not used for longest while all of them are over the size limit."""
        try:
            for line in make_room(self.store, keep=key):
                yield Notice(line)
        except DiskError as error:
            yield Notice(str(error))
