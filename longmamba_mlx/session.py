"""The one façade that the command line, the chat and the Python API share: documents in, events out."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING

from longmamba_mlx.errors import DiskError, NoMLXError, UsageError
from longmamba_mlx.events import Answer as Answer
from longmamba_mlx.events import Answered as Answered
from longmamba_mlx.events import Counted as Counted
from longmamba_mlx.events import Event as Event
from longmamba_mlx.events import Failed as Failed
from longmamba_mlx.events import Loaded as Loaded
from longmamba_mlx.events import Loading as Loading
from longmamba_mlx.events import Notice as Notice
from longmamba_mlx.events import Piece as Piece
from longmamba_mlx.events import ReadDone as ReadDone
from longmamba_mlx.events import ReadProgress as ReadProgress

if TYPE_CHECKING:
    from longmamba_mlx.api import Model, ReadDocument
    from longmamba_mlx.documents import Document
    from longmamba_mlx.reading import Progress
    from longmamba_mlx.store import StateStore


class Session:
    """One model, one document read, any number of questions. Iterate it on one thread; `stop` is for any thread.

    Creating it does no work: the model is loaded by the first `open`.
    """

    def __init__(
        self,
        model: str = "demo",
        *,
        filter: str = "longmamba",
        chunk: int = 512,
        max_tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
        save: bool = True,
        offline: bool = False,
    ) -> None:
        if chunk < 1 or max_tokens < 1 or temperature < 0:
            raise UsageError("--chunk and --max-tokens must be at least 1, --temp at least 0.")
        self._name, self._filter, self._offline = model, filter, offline
        self._chunk, self._save = chunk, save
        self._sampling = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        self._stop = threading.Event()
        self._model: Model | None = None
        self._notices: list[str] = []
        self.document: ReadDocument | None = None

    def open(self, source: Sequence[str] | Document) -> Iterator[Event]:
        """Load the model if needed, then read the documents, or reopen what is remembered of them.

        Raises LongMambaError; StoppedError when `stop` ended the reading.
        """
        self._stop.clear()
        document = _document(source)  # a missing file is told before a model is loaded
        model = yield from self._load()
        self.document = yield from self._read(model, document)

    def ask(self, question: str) -> Iterator[Event]:
        """Piece after Piece, then Answered. Raises UsageError before a document is read."""
        self._stop.clear()
        if self.document is None:
            raise UsageError("There is no document yet.", hint="Open one first: --file book.txt")
        yield from self.document.answering(question, should_stop=self._stop.is_set, **self._sampling)  # type: ignore[arg-type]

    def stop(self) -> None:
        """End the reading or answer in progress within a chunk or a token."""
        self._stop.set()

    def _load(self) -> Generator[Event, None, Model]:
        if self._model is None:
            yield Loading(self._name)
            started = time.monotonic()
            try:
                from longmamba_mlx.api import load
            except ImportError as error:
                hint = "Install the package again with pip: it brings the MLX that fits this machine."
                raise NoMLXError(f"MLX does not load here: {error}", hint=hint) from None
            self._model = load(self._name, filter=self._filter, offline=self._offline)
            yield Loaded(self._name, self._model.parameters, time.monotonic() - started)
        return self._model

    def _read(self, model: Model, document: Document) -> Generator[Event, None, ReadDocument]:
        from longmamba_mlx.api import ReadDocument
        from longmamba_mlx.paths import state_folder
        from longmamba_mlx.reading import Reading
        from longmamba_mlx.store import StateStore

        started = time.monotonic()
        store = StateStore(state_folder(), warn=self._notices.append)
        ids = model.tokenizer.encode(document.text)
        yield Counted(document.title, len(ids))
        plan = model.plan(len(ids), ids)
        key = model.key(document, len(ids), plan, self._chunk)
        stored = store.load(key, like=model.loaded.model.initial_state())
        yield from self._told()
        if stored is not None:
            reading = Reading(stored.state, None, plan.resolved(stored.thresholds) if plan else None)
            read, kept = ReadDocument(model, document, reading, key, 0.0), True
        else:
            steps = model.reading_of(document, ids, plan, chunk=self._chunk, should_stop=self._stop.is_set)
            read = yield from _as_events(steps)
            kept = self._save and self._remember(store, read)
            yield from self._told()
        yield ReadDone(
            title=document.title,
            tokens=read.tokens,
            seconds=time.monotonic() - started,
            state_bytes=read.state.nbytes,
            reopened=stored is not None,
            stored=key.digest() if kept else None,
            filter=model.filter if plan is not None else "off",
        )
        return read

    def _remember(self, store: StateStore, read: ReadDocument) -> bool:
        """Store the state; a full disk costs the memory of it, never the reading."""
        try:
            store.save(read.key, read.state, read.thresholds(), read.info())
        except DiskError as error:
            self._notices.append(f"Not remembered: {error}")
            return False
        return True

    def _told(self) -> Iterator[Notice]:
        while self._notices:
            yield Notice(self._notices.pop(0))


def _document(source: Sequence[str] | Document) -> Document:
    from longmamba_mlx.documents import Document, read_documents

    return source if isinstance(source, Document) else read_documents(source)


def _as_events(steps: Generator[Progress, None, ReadDocument]) -> Generator[Event, None, ReadDocument]:
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            read: ReadDocument = end.value
            return read
        yield ReadProgress(step.done, step.total, step.tokens_per_second, step.seconds_left, step.memory)
