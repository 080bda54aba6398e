"""A plugin of the program `llm`: models that read a document once, and remembered documents as fragments and models.

    llm -m longmamba/demo -f book:alice "What is the access code of Varnok?"

A fragment is a document's text. The model finds it remembered by its digest; a text that it has not read it reads.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import llm
from llm.utils import Fragment
from pydantic import Field

from longmamba_mlx.builtin import BUILT_IN
from longmamba_mlx.errors import LongMambaError, UsageError

if TYPE_CHECKING:
    from longmamba_mlx.interfaces.catalogue import Remembered
    from longmamba_mlx.interfaces.library import Library, Turn
    from longmamba_mlx.session.read_document import ReadDocument
    from longmamba_mlx.states.store import StateEntry

_PREFIX = "longmamba/"


@llm.hookimpl
def register_models(register: Callable[[llm.Model], None]) -> None:
    """The built-in models and the user's default one, and for each remembered document one that answers from it."""
    from longmamba_mlx.registry.resolve import user_default

    names = [*BUILT_IN]
    try:
        names += filter(None, [user_default()])
        books = [(name, book) for name in dict.fromkeys(names) for book in _remembered(name) if not book.unfinished]
    except (LongMambaError, OSError):  # `llm` must start all the same; a command of ours tells what is wrong
        books = []
    for name in dict.fromkeys(names):
        register(RememberingModel(name))
    for name, book in books:
        register(RememberingModel(name, book.name))


@llm.hookimpl
def register_fragment_loaders(register: Callable[[str, Callable[[str], Fragment]], None]) -> None:
    """`-f book:NAME`."""
    register("book", load_book)


def load_book(name: str) -> Fragment:
    """The text of the remembered document of this name or key, from its file."""
    from longmamba_mlx.documents import read_documents
    from longmamba_mlx.interfaces.catalogue import find

    try:
        book = find(_remembered(None), name)
        if not os.path.exists(book.source):
            raise UsageError(f"The file of {book.name!r} is not at hand.", hint=f"It was {book.source!r}: -f FILE.")
        text = read_documents([book.source]).text
        return Fragment(text, f"book:{book.name}")  # type: ignore[no-untyped-call]
    except LongMambaError as error:
        raise ValueError(_line(error)) from None


class RememberingModel(llm.Model):  # type: ignore[misc]
    """A model that answers from the fragments of the prompt, or from one remembered document."""

    can_stream = True

    class Options(llm.Options):  # type: ignore[misc]
        """What `llm -o NAME VALUE` takes."""

        max_tokens: int = Field(256, ge=1, description="Longest answer, in tokens.")
        temperature: float = Field(0.0, ge=0.0, description="0: always the likeliest token.")
        seed: int = Field(0, ge=0, description="For answers above temperature 0.")
        reread: int = Field(0, ge=0, description="Number of related passages to read again before answering.")
        surest: bool = Field(False, description="Answer from the surest of the document's parts.")
        as_of: str | None = Field(None, description='Answer as of a place: "chapter 12", "page 40", "50%".')

    def __init__(self, name: str, book: str = "") -> None:
        self.name, self.book = name, book
        self.model_id = _PREFIX + name + (f"@{book}" if book else "")

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> Iterator[str]:
        """Yield the answer in pieces, and after them why there is none."""
        try:
            yield from self._answer(prompt, response)
        except LongMambaError as error:
            raise llm.ModelError(_line(error)) from None

    def _answer(self, prompt: Any, response: Any) -> Iterator[str]:
        from longmamba_mlx.events import Answered, Piece
        from longmamba_mlx.interfaces.answers import answer_table, explanation
        from longmamba_mlx.interfaces.library import Question

        library, wanted = _library(self.name), prompt.options
        text, turns, words = _parts(prompt, named=bool(self.book))
        book = self._open(library, text)
        question = Question(words, turns, wanted.as_of, wanted.reread, wanted.max_tokens, wanted.temperature,
                            wanted.seed, wanted.surest)  # fmt: skip
        for event in library.ask(book, question, _never):
            if isinstance(event, Piece):
                yield event.text
            elif isinstance(event, Answered):
                if reason := explanation(event.answer, wanted.as_of):
                    yield ("\n\n" if event.answer.text else "") + reason
                response.response_json = answer_table(event.answer, library.opened(book), wanted.as_of)
                response.set_usage(input=book.tokens, output=event.answer.tokens)

    def _open(self, library: Library, text: str) -> ReadDocument:
        from longmamba_mlx.events import Event, ReadProgress
        from longmamba_mlx.ground.steps import run_to_end
        from longmamba_mlx.interfaces.catalogue import find

        def tell(event: Event) -> None:
            if isinstance(event, ReadProgress) and sys.stderr.isatty():
                end = "\r" if event.done < event.total else "\n"
                print(f"Reading, {event.done / event.total:.0%} ", end=end, file=sys.stderr, flush=True)

        library.model()
        if text:
            return run_to_end(library.open_text(text, _never), tell)
        return run_to_end(library.open_remembered(find(library.documents(), self.book), _never), tell)


@cache
def _library(name: str) -> Library:
    from longmamba_mlx.interfaces.folders import Folders
    from longmamba_mlx.interfaces.library import Library
    from longmamba_mlx.session.api import load

    return Library(partial(load, name), Folders(None), name=name)


def _remembered(model: str | None) -> tuple[Remembered, ...]:
    """The stored documents of the model of this name; None: of any model. Loads no model."""
    from longmamba_mlx.interfaces.catalogue import catalogue
    from longmamba_mlx.paths import state_folder
    from longmamba_mlx.states.store import StateStore

    def is_of_it(entry: StateEntry) -> bool:
        return model is None or (entry.info or {}).get("model") == model

    return catalogue(StateStore(state_folder()), is_of_it)


def _parts(prompt: Any, *, named: bool) -> tuple[str, tuple[Turn, ...], str]:
    """The document, the turns before the question, and the question.

    The document is the fragments of this prompt, or of the first one of a continued conversation.
    """
    from longmamba_mlx.interfaces.conversation import Message, conversation

    messages = [
        Message(message.role, "\n".join(getattr(part, "text", "") for part in message.parts).strip())
        for message in prompt.messages
        if message.role in ("system", "user", "assistant")
    ]
    fragments = [*prompt.system_fragments, *prompt.fragments]
    if not fragments:
        return conversation(messages, named=named)
    words = str(prompt.prompt)[len("\n".join(prompt.fragments)) :].strip()
    _, turns, _ = conversation([*messages[:-1], Message("user", words or "?")], named=True)
    return "\n\n".join(map(str, fragments)), turns, words


def _line(error: LongMambaError) -> str:
    from longmamba_mlx.documents import one_line

    return one_line(f"{error} {error.hint or ''}", 600)


def _never() -> bool:
    return False
