"""Search a document's text for the evidence of an answer: related passages, and numbers that do not occur in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from longmamba_mlx.errors import DiskError
from longmamba_mlx.events import Part, Passage
from longmamba_mlx.ground.steps import Stop
from longmamba_mlx.retrieval.passages import PassageIndex

if TYPE_CHECKING:
    from longmamba_mlx.session.answer import Reply

Found = TypeVar("Found")
_PASSAGES = 3  # shown with an answer


@dataclass(frozen=True)
class Evidence:
    """Searches in the characters of a document up to `end` (None: all of it); for the passages of an answer, from
    `start` on.

    They find nothing without an index (the text is not open), or without room on the disk to build it.
    """

    index: PassageIndex | None
    end: int | None = None
    should_stop: Stop | None = None
    start: int = 0

    def passages(self, question: str, answer: str) -> tuple[Passage, ...] | None:
        """The passages most related to an answer; None without an index."""
        return self._search(
            lambda index: index.search(
                question, answer, _PASSAGES, start=self.start, end=self.end, should_stop=self.should_stop
            ),
            None,
        )

    def nearest(self, question: str) -> tuple[Passage, ...]:
        """The passages nearest to a question that has no answer."""
        return self._search(lambda index: index.nearest(question, end=self.end, should_stop=self.should_stop), ())

    def comes_later(self, question: str) -> bool:
        """Whether a text search finds the question's passage after the first `end` characters."""
        end = self.end
        if end is None:
            return False
        return self._search(lambda index: index.comes_later(question, end, should_stop=self.should_stop), False)

    def not_in_text(self, answer: str) -> tuple[str, ...]:
        """The numbers and codes of an answer that do not occur in the text."""
        return self._search(lambda index: index.not_in_text(answer, end=self.end, should_stop=self.should_stop), ())

    def missing_names(self, question: str) -> tuple[str, ...]:
        """The names in a question that do not occur in the text."""
        return self._search(lambda index: index.missing_names(question, end=self.end, should_stop=self.should_stop), ())

    def to_reread(self, question: str, count: int) -> tuple[Passage, ...]:
        """The `count` passages to read again before a question, in the document's order."""
        return self._search(
            lambda index: index.to_reread(question, count, end=self.end, should_stop=self.should_stop), ()
        )

    def _search(self, search: Callable[[PassageIndex], Found], nothing: Found) -> Found:
        try:
            return nothing if self.index is None else search(self.index)
        except DiskError:
            return nothing


Reason = Literal["", "not_found", "not_yet"]


def judged(
    reply: Reply, found: bool, question: str, evidence: Evidence, part: Part | None = None
) -> tuple[bool, tuple[Passage, ...], tuple[str, ...], Reason]:
    """`found`, `passages`, `not_in_text` and `reason` of an Answer; found: whether the model gave one, from `part` of
    the document if that is known."""
    if found:
        within = evidence if part is None else replace(evidence, start=part.start, end=part.end)
        passages = within.passages(question, reply.text)
        whole = reply.text if reply.reason == "stop" else reply.text.rpartition(" ")[0]  # the last word may be cut
        not_in_text = evidence.not_in_text(whole)
        if passages != ():
            return True, passages or (), not_in_text, ""
        # No passage shares a significant word with the question or the answer: it cannot come from the document.
    else:
        not_in_text = ()
    if reply.reason == "stopped":
        return False, (), not_in_text, ""
    return False, evidence.nearest(question), not_in_text, "not_yet" if evidence.comes_later(question) else "not_found"
