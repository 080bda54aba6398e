"""A session: one model, its open documents and the questions to them, as events for the command line and the chat."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Unpack

from longmamba_mlx.documents.encodings import asked_for
from longmamba_mlx.errors import NoMLXError, UsageError
from longmamba_mlx.events import Event, Loaded, Loading, Notice, Side
from longmamba_mlx.session.asking import Asking, Sampling
from longmamba_mlx.session.sources import text_of

if TYPE_CHECKING:
    from longmamba_mlx.conversion.report import Report
    from longmamba_mlx.documents import Document
    from longmamba_mlx.documents.streamed_text import Text
    from longmamba_mlx.session.api import Model, ReadDocument


class Session:
    """One model, its open documents, any number of questions. Iterate its events on one thread; `stop` is for any.

    Creating it does no work: the first `open` loads the model. Questions go to the current document. Without
    `hold_text` a large text file is not held in memory.
    """

    def __init__(
        self,
        model: str = "demo",
        *,
        filter: str = "longmamba",
        chunk: int | None = None,
        max_tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
        save: bool = True,
        offline: bool = False,
        hold_text: bool = True,
        attention_window: int | None = None,
        encoding: str = "",
    ) -> None:
        if (chunk is not None and chunk < 1) or max_tokens < 1 or temperature < 0:
            raise UsageError("--chunk and --max-tokens must be at least 1, --temp at least 0.")
        self._encoding = asked_for(encoding)
        self._name, self._filter, self._offline, self._window = model, filter, offline, attention_window
        self._chunk, self._save, self._hold_text = chunk, save, hold_text
        self._sampling: Sampling = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        self.report: Report | None = None
        """Receives a download's progress while a model is loaded."""
        self._stop = threading.Event()
        self._model: Model | None = None
        self._books: list[ReadDocument] = []
        self._current = -1
        self._unfiltered: dict[str, ReadDocument] = {}  # by the digest of the document

    @property
    def books(self) -> tuple[ReadDocument, ...]:
        """The documents that are open, in the order they were opened."""
        return tuple(self._books)

    @property
    def current(self) -> int:
        """The number of the document that questions go to; -1 before there is one."""
        return self._current

    @property
    def document(self) -> ReadDocument | None:
        """The document that questions go to."""
        return self._books[self._current] if self._books else None

    @property
    def model(self) -> str:
        """The model's name."""
        return self._name

    @property
    def filter(self) -> str:
        """The filter's name as it was chosen: "longmamba" stays "longmamba"."""
        return self._filter

    def open(self, source: Sequence[str] | Document) -> Iterator[Event]:
        """Load the model if needed, then read the documents as one, or restore their stored state.

        The result replaces an open document of the same source, or is added to the others, and becomes the current one.
        Raises LongMambaError; StoppedError when `stop` ended the reading.
        """
        self._stop.clear()
        # before a model is loaded: a missing file is reported at once
        document = text_of(source, hold_text=self._hold_text, encoding=self._encoding, should_stop=self._stop.is_set)
        model = yield from self._load()
        book = yield from self._open(model, document)
        same = [index for index, other in enumerate(self._books) if _is_same(other, document)]
        if same:
            self._current = same[0]
            self._books[same[0]] = book
        else:
            self._books.append(book)
            self._current = len(self._books) - 1

    def switch(self, index: int) -> None:
        """Make another open document the current one. Raises UsageError for an unknown number."""
        if not 0 <= index < len(self._books):
            raise UsageError(f"There is no document {index + 1}; {len(self._books)} are open.")
        self._current = index

    def ask(self, question: str, **asking: Unpack[Asking]) -> Iterator[Event]:
        """Yield the answer's Pieces, then Answered; before them ReadProgress and Notices where `as_of` or `surest` have
        to read something.

        keep, reread, as_of, surest, part_tokens: as in `ReadDocument.answering`. Raises UsageError before a
        document is read.
        """
        self._stop.clear()
        yield from self._book().answering(question, should_stop=self._stop.is_set, **asking, **self._sampling)

    def compare(self, question: str) -> Iterator[Event]:
        """Answer a question with the filter off, then on: Side, Pieces, Answered, twice.

        A document without a stored unfiltered state is read unfiltered first. Raises UsageError where nothing was
        filtered: the answers would be the same.
        """
        self._stop.clear()
        book = self._book()
        _refuse_unfiltered(book)
        for side in ((yield from self._without_filter(book)), book):
            if self._stop.is_set():
                return
            yield Side(side.filter)
            before = side.conversation
            yield from side.answering(question, should_stop=self._stop.is_set, **self._sampling)
            side.conversation = before  # a comparison is no part of it

    def reset_conversation(self) -> None:
        """Let the next question with `keep` start from the document alone."""
        if self.document is not None:
            self.document.reset_conversation()

    def forget(self) -> str | None:
        """Delete the stored state of the current document -> its key, None when none was stored. It stays open.

        Raises UsageError before a document is read, DiskError.
        """
        from longmamba_mlx.paths import state_folder
        from longmamba_mlx.states.store import StateStore

        digest = self._book().key.digest()
        try:
            return StateStore(state_folder()).remove(digest).digest
        except UsageError:  # there is none
            return None

    def use_model(self, name: str, filter: str | None = None) -> Iterator[Event]:
        """Change the model, or its filter: all open documents are restored or read with it.

        The session changes only when all of them are: after an error or a stop it is as before.
        """
        self._stop.clear()
        before = self._name, self._filter, self._model
        self._name, self._filter, self._model = name, filter or self._filter, None
        books = []
        complete = False
        try:
            model = yield from self._load()
            for book in self._books:
                if book.source is not None:
                    books.append((yield from self._open(model, book.source)))
            complete = True
        finally:
            if not complete:
                self._name, self._filter, self._model = before
        self._books, self._unfiltered = books, {}

    def stop(self) -> None:
        """End the reading or answer in progress within a chunk or a token."""
        self._stop.set()

    def _book(self) -> ReadDocument:
        if self.document is None:
            raise UsageError("There is no document yet.", hint="Open one first: --file book.txt")
        return self.document

    def _without_filter(self, book: ReadDocument) -> Generator[Event, None, ReadDocument]:
        assert book.source is not None and self._model is not None  # noqa: S101 - an open document has both
        digest = book.source.digest
        if digest not in self._unfiltered:
            self._unfiltered[digest] = yield from self._open(self._model.with_filter("off"), book.source)
        return self._unfiltered[digest]

    def _load(self) -> Generator[Event, None, Model]:
        if self._model is None:
            yield Loading(self._name)
            started = time.monotonic()
            try:
                from longmamba_mlx.session.api import load
            except ImportError as error:
                hint = "Install the package again with pip: it brings the MLX that fits this machine."
                raise NoMLXError(f"MLX does not load here: {error}", hint=hint) from None
            self._model = load(self._name, filter=self._filter, attention_window=self._window, offline=self._offline,
                               report=self.report)  # fmt: skip
            yield Loaded(self._name, self._model.parameters, time.monotonic() - started)
            yield from map(Notice, self._model.loaded.notes)
        return self._model

    def _open(self, model: Model, document: Text) -> Generator[Event, None, ReadDocument]:
        from longmamba_mlx.session.open_document import open_document

        return (
            yield from open_document(model, document, chunk=self._chunk, save=self._save, should_stop=self._stop.is_set)
        )


def _refuse_unfiltered(book: ReadDocument) -> None:
    if book.filter != "off":
        return
    if book.model.filter == "off":
        why, hint = "was read without a filter", "/filter longmamba reads it with one."
    else:
        why = f"is short enough to be kept whole ({book.tokens:,} tokens)"
        hint = f"The filter is for documents of more than {book.model.training_length:,} tokens."
    raise UsageError(f"There is nothing to compare: {book.title} {why}.", hint=hint)


def _is_same(book: ReadDocument, document: Text) -> bool:
    """Whether both come from the same files, or have the same text."""
    if book.source is None:
        return False
    named = document.source not in ("text", "stdin")
    return book.source.digest == document.digest or (named and book.source.source == document.source)
