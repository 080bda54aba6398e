"""Events of opening a document and answering a question, shared by command line, chat and API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Loading:
    """A model is about to be loaded."""

    name: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model is loaded. `parameters` is their number, `seconds` the time it took."""

    name: str
    parameters: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Counted:
    """The document is tokenised: from here on the time left can be estimated."""

    title: str
    tokens: int


@dataclass(frozen=True, slots=True)
class ReadProgress:
    """`done` of `total` tokens read; `memory` is the process's resident size in bytes.

    `place` is the position in the document: "chapter 12", "page 40", "" if it has no such places.
    """

    done: int
    total: int
    tokens_per_second: float
    seconds_left: float
    memory: int
    place: str = ""


@dataclass(frozen=True, slots=True)
class ReadDone:
    """The document state is ready. `stored` is the key of the stored state, None if it was not stored.

    `before` of the tokens were read in an earlier run, or when the document was shorter. `digest` identifies the text.
    """

    title: str
    tokens: int
    seconds: float
    state_bytes: int
    reopened: bool
    stored: str | None
    filter: str
    before: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """The answer that follows comes from the document read with this filter."""

    filter: str


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of the answer, already free of control characters."""

    text: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A paragraph related to an answer: `text` is the document's text[start:end], in characters.

    `number` counts paragraphs from 1; `heading` is the chapter ("" if none); `quoted`: it contains the answer word for
    word; `place` is its position ("page 12", "Chapter 3", "" if unknown).
    """

    number: int
    start: int
    end: int
    text: str
    heading: str
    quoted: bool
    place: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a document that an answer came from: `number` of `count`, counted from 1, text[start:end] in
    characters; `place` is where it is ("chapter 12"), or how far into the text. `probability` is that of the answer's
    first token."""

    number: int
    count: int
    start: int
    end: int
    place: str
    probability: float

    @property
    def label(self) -> str:
        """For people: "part 12 of 37, chapter 5"."""
        return f"part {self.number:,} of {self.count:,}, {self.place}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `found` is False when the model says that the answer is not in the document.

    `finish_reason` is "stop" (the model ended), "length" (`max_tokens` reached) or "stopped" (on request).
    `not_in_text`: numbers and codes of the answer that do not occur in the document, word for word. `reason` says why
    there is no answer ("" if there is one): "demo" (a demonstration model that was not trained for the question),
    "not_found", or "not_yet" (asked as of a place, and found later). `passages` are then what a text search finds.
    `example`: for "demo", a question that the model knows. `part`: which part of the document gave it, where the surest
    one was asked for.
    """

    question: str
    text: str
    found: bool
    passages: tuple[Passage, ...]
    tokens: int
    seconds: float
    finish_reason: str
    not_in_text: tuple[str, ...] = ()
    reason: Literal["", "demo", "not_found", "not_yet"] = ""
    example: str = ""
    part: Part | None = None

    @property
    def doubt(self) -> str:
        """A remark on numbers and codes that are not in the document, "" when all of them are."""
        return f"not word for word in the text: {', '.join(self.not_in_text)}" if self.not_in_text else ""


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer is complete."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of the document, text[start:end] in characters; `kept` (0 to 1) is the mean share of the filterable
    units that kept its tokens; `place` is where it begins ("chapter 12"), or ""."""

    start: int
    end: int
    kept: float
    place: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A message for the user that is not an error."""

    text: str


@dataclass(frozen=True, slots=True)
class Failed:
    """An error: one line, a hint, the exit code a command would return."""

    message: str
    hint: str | None
    exit_code: int


Event: TypeAlias = Loading | Loaded | Counted | ReadProgress | ReadDone | Side | Piece | Answered | Notice | Failed
