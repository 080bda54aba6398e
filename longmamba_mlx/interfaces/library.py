"""One model and its remembered documents: open one by name, path or text, ask it, forget it."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from longmamba_mlx.documents import Document
from longmamba_mlx.documents.sanitise import clean
from longmamba_mlx.errors import DocumentError, UsageError
from longmamba_mlx.events import Event, Notice, ReadDone
from longmamba_mlx.ground.steps import Steps, Stop
from longmamba_mlx.inference.prefill import chunk_or_default
from longmamba_mlx.interfaces.catalogue import Remembered, UnknownDocumentError, catalogue, find
from longmamba_mlx.interfaces.folders import Folders
from longmamba_mlx.paths import state_folder
from longmamba_mlx.session.open_document import open_document
from longmamba_mlx.session.read_document import Conversation, ReadDocument
from longmamba_mlx.session.sources import text_of
from longmamba_mlx.states.store import StateEntry, StateStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from longmamba_mlx.documents.streamed_text import Text
    from longmamba_mlx.session.model import Model

Turn = tuple[str, str]
"""A question and its answer."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question and how it is to be answered; `earlier` are the turns of the conversation before it."""

    text: str
    earlier: tuple[Turn, ...] = ()
    as_of: str | None = None
    reread: int = 0
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    surest: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A question is about to be answered: it and the turns before it are `tokens` tokens."""

    tokens: int


@dataclass(frozen=True, slots=True)
class _Held:
    """An open document, how it was opened, and the file it came from as it was then."""

    book: ReadDocument
    done: ReadDone
    stamp: tuple[object, ...] | None


class Library:
    """Everything but `documents`, `forget` and `loaded` is for the one thread that owns the model.

    `most_open` documents are held open; one that is opened again is restored from its stored state.
    """

    def __init__(
        self, load: Callable[[], Model], folders: Folders, *, name: str, chunk: int | None = None, most_open: int = 4
    ) -> None:
        self.folders, self.name = folders, name
        self._load, self._chunk, self._most = load, chunk, most_open
        self._model: Model | None = None
        self._held: OrderedDict[str, _Held] = OrderedDict()  # by the digest of the key, the latest used last
        self._usable: set[str] = set()  # digests of keys

    @property
    def loaded(self) -> bool:
        """Whether the model is loaded."""
        return self._model is not None

    def model(self) -> Model:
        """The model; loaded first if need be. Raises ModelError and its kinds."""
        if self._model is None:
            self._model = self._load()
        return self._model

    def documents(self) -> tuple[Remembered, ...]:
        """What this model remembers, read as it is configured, the latest used first; from any thread once `loaded`."""
        return catalogue(StateStore(state_folder()), self._is_usable)

    def forget(self, name: str) -> Remembered:
        """Delete the stored state of a document. Raises UnknownDocumentError, DiskError."""
        document = find(self.documents(), name)
        StateStore(state_folder()).remove(document.digest)
        return document

    def open(self, name: str, should_stop: Stop) -> Generator[Event, None, ReadDocument]:
        """Open the remembered document of this name, or the file at this path, which is read if necessary.

        Yields the events of reading. Raises UnknownDocumentError, OutsideError, DocumentError, StoppedError.
        """
        self.model()
        try:
            document = find(self.documents(), name)
        except UnknownDocumentError:
            if not self._is_path(name):
                raise
            return (yield from self.open_file(name, should_stop))
        return (yield from self.open_remembered(document, should_stop))

    def open_file(self, name: str, should_stop: Stop) -> Generator[Event, None, ReadDocument]:
        """Open a file or folder, read if need be. Raises as `open` does."""
        return (yield from self._open_path(self.folders.path(name), should_stop))

    def open_remembered(self, document: Remembered, should_stop: Stop) -> Generator[Event, None, ReadDocument]:
        """Open a remembered document, with its text where its file is allowed, there and unchanged."""
        held = self._held.get(document.digest)
        if held is not None and (held.stamp is None or held.stamp == _stamp(Path(document.source))):
            return (yield from self._again(held))
        if document.unfinished:
            return (yield from self.open_file(document.source, should_stop))
        text = self._text_of(document, should_stop)
        if text is not None:
            return (yield from self._open_text(text, _stamp(Path(document.source)), should_stop))
        yield Notice("Its text is not available: there are no passages, and no answers as of a place.")
        book = self.model().open(StateStore(state_folder()).path(document.key))
        done = ReadDone(document.name, book.tokens, 0.0, book.state.nbytes, True, document.digest, book.filter,
                        digest=document.key.document)  # fmt: skip
        return (yield from self._hold(_Held(book, done, None)))

    def open_text(self, words: str, should_stop: Stop) -> Generator[Event, None, ReadDocument]:
        """Open a text that was given as such, read if need be; it is named after its digest.

        A document that is remembered and differs from it by white space at its ends is taken for the same.
        """
        self.model()
        words = clean(words)
        texts = {_digest(text): text for text in (words, words.strip(), words.strip() + "\n")}
        for held in reversed(self._held.values()):
            if held.book.key.document in texts and held.book.source is not None:
                return (yield from self._again(held))
        known = {document.key.document: document.name for document in self.documents() if not document.unfinished}
        digest = next((digest for digest in texts if digest in known), _digest(words.strip()))
        title = known.get(digest, f"message-{digest[:8]}")
        return (yield from self._open_text(Document(title, texts[digest]), None, should_stop))

    def opened(self, book: ReadDocument) -> ReadDone:
        """How an open document was opened."""
        return self._held[book.key.digest()].done

    def ask(self, book: ReadDocument, question: Question, should_stop: Stop) -> Iterator[Event | Asked]:
        """Yield Asked, the answer's Pieces, then Answered. Raises UsageError, StoppedError."""
        form, encode = book.model.form, book.model.tokenizer.encode
        conversation = _conversation(book, question.earlier)
        again = conversation is not None
        before = len(conversation.ids) if conversation is not None else 0
        yield Asked(before + len(encode(form.ask(form.as_known(question.text) or question.text, again=again))))
        book.conversation = conversation
        try:
            yield from book.answering(
                question.text,
                keep=again,
                reread=question.reread,
                as_of=question.as_of,
                surest=question.surest,
                max_tokens=question.max_tokens,
                temperature=question.temperature,
                seed=question.seed,
                should_stop=should_stop,
            )
        finally:
            book.reset_conversation()

    def _is_usable(self, entry: StateEntry) -> bool:
        key, model = entry.key, self._model
        if key is None or model is None:
            return False
        if entry.digest in self._usable:
            return True
        chunk = chunk_or_default(self._chunk)
        if model.can_plan(key.tokens) and model.would_store(key, model.plan(key.tokens), chunk):
            self._usable.add(entry.digest)
        return entry.digest in self._usable

    def _is_path(self, name: str) -> bool:
        if os.sep in name or name.startswith("~"):
            return True
        return os.path.exists(self.folders.path(name))

    def _text_of(self, document: Remembered, should_stop: Stop) -> Text | None:
        """The text that a document was read from; None where it is not allowed, gone, or another one by now."""
        try:
            text = text_of([str(self.folders.path(document.source))], hold_text=False, should_stop=should_stop)
        except (DocumentError, UsageError):
            return None
        return text if text.digest == document.key.document else None

    def _open_path(self, path: Path, should_stop: Stop) -> Generator[Event, None, ReadDocument]:
        stamp = _stamp(path)
        for held in reversed(self._held.values()):
            if stamp is not None and held.stamp == stamp:
                return (yield from self._again(held))
        text = text_of([str(path)], hold_text=False, should_stop=should_stop)
        return (yield from self._open_text(text, stamp, should_stop))

    def _open_text(
        self, text: Text, stamp: tuple[object, ...] | None, should_stop: Stop
    ) -> Generator[Event, None, ReadDocument]:
        steps = Steps(open_document(self.model(), text, chunk=self._chunk, should_stop=should_stop))
        done: ReadDone | None = None
        for event in steps:
            if isinstance(event, ReadDone):
                done = event  # told by `_hold`
            else:
                yield event
        return (yield from self._hold(_Held(steps.result, cast("ReadDone", done), stamp)))

    def _hold(self, held: _Held) -> Generator[Event, None, ReadDocument]:
        key = held.book.key.digest()
        self._held[key] = held
        self._held.move_to_end(key)
        while len(self._held) > self._most:
            self._held.popitem(last=False)
        yield held.done
        return held.book

    def _again(self, held: _Held) -> Generator[Event, None, ReadDocument]:
        """A document that is open already."""
        return (yield from self._hold(replace(held, done=replace(held.done, reopened=True, before=0, seconds=0.0))))


def _digest(words: str) -> str:
    """The digest of a Document with this text."""
    return hashlib.sha256(words.encode()).hexdigest()


def _conversation(book: ReadDocument, turns: Sequence[Turn]) -> Conversation | None:
    """The conversation after some turns, those left out that the model would not have been asked; None without any."""
    form, encode = book.model.form, book.model.tokenizer.encode
    ids: list[NDArray[np.uint32]] = []
    for question, answer in turns:
        known = form.as_known(question)
        if known is not None and known.strip():
            prompt = form.ask(known, again=bool(ids))
            space = "" if form.follow_up or prompt[-1:].isspace() else " "
            ids += [encode(prompt), encode(space + answer.strip(), as_text=True)]
    return Conversation(book.state, np.concatenate(ids), None) if ids else None


def _stamp(path: Path) -> tuple[object, ...] | None:
    """A stamp that changes when the file changes; None for a folder or a missing file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return (str(path), status.st_ino, status.st_size, status.st_mtime_ns) if path.is_file() else None
