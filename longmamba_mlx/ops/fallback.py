"""Continue with plain MLX when a Metal kernel fails in the middle of work.

MLX reports such an error when it evaluates: in `mx.eval` or `mx.async_eval`, or in a later `mx.eval` of what was
dispatched before. So work that may fail evaluates what it computes (`values`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

from longmamba_mlx.ops import backend, metal_check

Step = TypeVar("Step")
Result = TypeVar("Result")


def with_fallback(work: Callable[[], Result]) -> Result:
    """Return `work()`; where a Metal kernel fails in it, turn the kernels off and do it again with plain MLX.

    `work` evaluates what it computes, and leaves the arrays that it starts from as they were.
    """
    retriable = _retriable()
    try:
        return work()
    except (RuntimeError, ValueError) as error:
        if not retriable(error):
            raise
    return work()


def steps_with_fallback(begin: Callable[[], Generator[Step, None, Result]]) -> Generator[Step, None, Result]:
    """Yield the steps of `begin()` and return its result; where a Metal kernel fails in them, turn the kernels off and
    go on with those of another `begin()`, which continues after the steps that were taken, or starts again."""
    retriable = _retriable()
    try:
        return (yield from begin())
    except (RuntimeError, ValueError) as error:
        if not retriable(error):
            raise
    return (yield from begin())


def _retriable() -> Callable[[Exception], bool]:
    """Return a predicate: whether work that starts now and fails should be retried without kernels."""
    on = backend.name() == "metal" and metal_check.on()
    return lambda error: on and metal_check.give_up(error)
