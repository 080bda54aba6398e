"""What the chat needs of a session: three methods and the events they yield."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeAlias

from longmamba_mlx.session import Event


class SessionLike(Protocol):
    """`longmamba_mlx.session.Session`, or a stand-in in tests.

    `open` and `ask` are iterated on one thread for life; `stop` may be called from any thread.
    """

    def open(self, paths: Sequence[str]) -> Iterator[Event]: ...

    def ask(self, question: str) -> Iterator[Event]: ...

    def stop(self) -> None: ...


SessionFactory: TypeAlias = Callable[[], SessionLike]
