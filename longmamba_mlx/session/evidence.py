"""Search a document's text for the evidence of an answer: related passages, and numbers that do not occur in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from longmamba_mlx.errors import DiskError
from longmamba_mlx.events import Passage
from longmamba_mlx.ground.steps import Stop
from longmamba_mlx.retrieval.passages import PassageIndex

Found = TypeVar("Found")
_PASSAGES = 3  # shown with an answer


@dataclass(frozen=True)
class Evidence:
    """Searches in the first `end` characters of a document (None: all of it).

    They find nothing without an index (the text is not open), or without room on the disk to build it.
    """

    index: PassageIndex | None
    end: int | None = None
    should_stop: Stop | None = None

    def passages(self, question: str, answer: str) -> tuple[Passage, ...] | None:
        """The passages most related to an answer; None without an index."""
        return self._search(
            lambda index: index.search(question, answer, _PASSAGES, end=self.end, should_stop=self.should_stop), None
        )

    def nearest(self, question: str) -> tuple[Passage, ...]:
        """The passages nearest to a question that has no answer."""
        return self._search(lambda index: index.nearest(question, end=self.end, should_stop=self.should_stop), ())

    def comes_later(self, question: str) -> bool:
        """Whether what is asked for is found after the first `end` characters."""
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
