"""A question and its answers as a record: shown, exported and saved."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, TypeVar, get_type_hints

from longmamba_mlx.documents.sanitise import sanitise
from longmamba_mlx.events import Answer, Part, Passage
from longmamba_mlx.tui.rendering import formatting

_PLAIN: dict[type, type | tuple[type, ...]] = {str: str, bool: bool, int: int, float: (int, float)}
Made = TypeVar("Made")


class Stage(Enum):
    """The stage of an exchange."""

    WAITING = "waiting"
    ANSWERING = "answering"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class How:
    """How a question is put. `keep`: as a follow-up; `reread`: passages read again before the answer; `as_of`:
    from what was known at that place; `surest`: from the surest part of the document; `compare`: with the filter off
    and on; `overview`: of the whole, without passages."""

    keep: bool = False
    reread: int = 0
    as_of: str = ""
    compare: bool = False
    overview: bool = False
    surest: bool = False

    @property
    def reads(self) -> bool:
        """Whether something may be read before the answer, so that its time is not that of answering alone."""
        return bool(self.as_of or self.reread or self.surest)

    @property
    def label(self) -> str:
        """For people; "" for an ordinary question."""
        parts = [
            "follow-up" if self.keep else "",
            f"{formatting.pluralize(self.reread, 'passage')} read again" if self.reread else "",
            f"as of {self.as_of}" if self.as_of else "",
            "asked of every part" if self.surest else "",
            "filter off and on" if self.compare else "",
        ]
        return ", ".join(part for part in parts if part)


@dataclass(slots=True)
class Reply:
    """One answer as far as it has come. `name`: the filter it was read with, "" unless two are compared; `mark`: what
    one should know of it, "stopped" or an error."""

    name: str = ""
    text: str = ""
    mark: str = ""
    answer: Answer | None = None


@dataclass(slots=True, eq=False)
class Exchange:
    """A question, and one reply or, when two filters are compared, two.

    `book`: the digest of the text that was asked; `files`: the paths it came from, () where they are not known.
    """

    question: str
    how: How = field(default_factory=How)
    book: str = ""
    stage: Stage = Stage.WAITING
    replies: list[Reply] = field(default_factory=lambda: [Reply()])
    files: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The last answer that has any text."""
        return next((reply.text for reply in reversed(self.replies) if reply.text.strip()), "")

    def as_json(self) -> dict[str, Any]:
        """Plain data with nothing in it that steers a terminal."""
        data = {"question": self.question, "how": asdict(self.how), "book": self.book, "files": self.files}
        clean: dict[str, Any] = _clean(data | {"answers": [asdict(reply) for reply in self.replies]})
        return clean

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Exchange:
        """The inverse of `as_json`, done. Raises KeyError, TypeError or ValueError for anything else."""
        replies = []
        for reply in _clean(data["answers"]):
            answer = reply["answer"]
            if answer is not None:
                passages = tuple(_checked(Passage(**passage)) for passage in answer["passages"])
                missing = tuple(str(code) for code in answer.get("not_in_text", ()))
                part = None if answer.get("part") is None else _checked(Part(**answer["part"]))
                answer = _checked(Answer(**(answer | {"passages": passages, "not_in_text": missing, "part": part})))
            replies.append(Reply(str(reply["name"]), str(reply["text"]), str(reply["mark"]), answer))
        files = tuple(str(path) for path in data.get("files", ()))
        question = sanitise(str(data["question"]))
        return cls(question, _checked(How(**data["how"])), str(data["book"]), Stage.DONE, replies, files)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return sanitise(value)
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value


def _checked(made: Made) -> Made:
    """A dataclass whose texts, numbers and flags are such. Raises TypeError."""
    for name, kind in get_type_hints(type(made)).items():
        if kind in _PLAIN and not isinstance(getattr(made, name), _PLAIN[kind]):
            raise TypeError(f"{name} is no {kind.__name__}")
    return made
