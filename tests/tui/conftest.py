"""Many applications in one process: collecting garbage as often as usual takes a fifth of the time."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def rare_garbage_collection() -> Iterator[None]:
    """Collect the chat's tests' garbage less often, and put everything back afterwards."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 20)
    yield
    gc.set_threshold(*before)
