"""Generators that return a value: their steps, their result, and what they raise."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from longmamba_mlx.ground.steps import Steps, run_to_end


def counting(total: int, closed: list[bool] | None = None) -> Generator[int, None, str]:
    try:
        yield from range(total)
    finally:
        if closed is not None:
            closed.append(True)
    return f"{total} steps"


@pytest.mark.parametrize("total", [0, 1, 3])
def test_all_steps_and_the_result(total: int) -> None:
    steps = Steps(counting(total))
    assert list(steps) == list(range(total)) and steps.result == f"{total} steps"
    seen: list[int] = []
    assert run_to_end(counting(total), seen.append) == f"{total} steps" and seen == list(range(total))
    assert run_to_end(counting(total)) == f"{total} steps"


def test_there_is_no_result_before_the_end() -> None:
    steps = Steps(counting(2))
    assert next(iter(steps)) == 0 and not hasattr(steps, "result")


def test_an_abandoned_loop_closes_the_generator() -> None:
    closed: list[bool] = []
    for step in Steps(counting(5, closed)):
        if step == 2:
            break
    assert closed == [True]


def test_errors_pass() -> None:
    def failing() -> Generator[int, None, None]:
        yield 1
        raise KeyError("a")

    with pytest.raises(KeyError):
        run_to_end(failing())
