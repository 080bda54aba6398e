"""The session interface the chat uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeAlias

from longmamba_mlx.events import Event
from longmamba_mlx.tui.worker.download import FetchReportLike
from longmamba_mlx.tui.worker.snapshot import ReadDocumentLike


class SessionLike(Protocol):
    """`longmamba_mlx.session.session.Session`, or a stand-in in tests.

    All methods are called on one thread, except `stop`, which any thread may call.
    """

    report: FetchReportLike | None

    @property
    def model(self) -> str: ...

    @property
    def filter(self) -> str: ...

    @property
    def books(self) -> Sequence[ReadDocumentLike]: ...

    @property
    def current(self) -> int: ...

    def open(self, source: Sequence[str]) -> Iterator[Event]: ...

    def ask(
        self, question: str, *, keep: bool = False, reread: int = 0, as_of: str | None = None, surest: bool = False
    ) -> Iterator[Event]: ...

    def compare(self, question: str) -> Iterator[Event]: ...

    def switch(self, index: int) -> None: ...

    def reset_conversation(self) -> None: ...

    def forget(self) -> str | None: ...

    def use_model(self, name: str, filter: str | None = None) -> Iterator[Event]: ...

    def stop(self) -> None: ...


SessionFactory: TypeAlias = Callable[[], SessionLike]
