"""Long work in steps: generators that yield progress and return a result, and requests to stop in between."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeAlias, TypeVar

Step = TypeVar("Step")
Result = TypeVar("Result")

Stop: TypeAlias = Callable[[], bool]
"""Whether the work in progress should end; called between steps, from any thread."""


class Steps(Generic[Step, Result]):
    """Iterates over a generator and keeps what it returned as `result`, which exists once the loop has ended."""

    result: Result

    def __init__(self, steps: Generator[Step, None, Result]) -> None:
        self._steps = steps

    def __iter__(self) -> Iterator[Step]:
        self.result = yield from self._steps


def run_to_end(steps: Generator[Step, None, Result], on_step: Callable[[Step], object] | None = None) -> Result:
    """Exhaust a generator, pass each step to `on_step`, and return what it returns."""
    work = Steps(steps)
    for step in work:
        if on_step is not None:
            on_step(step)
    return work.result
