"""What runs a kernel's text once: on this CPU (`host`) or on an NVIDIA GPU (`nvidia`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np

POISON = (0xFF, 0x7E)  # what memory holds before the first and before the second run


class EmulatorError(RuntimeError):
    """What is wrong with a kernel or with its launch."""


class Run(Protocol):
    """Buffers in the order of the kernel's arguments, then the launch; `spilled` says whether it wrote beside one."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def give(self, array: np.ndarray) -> None: ...

    def take(self, shape: tuple[int, ...], dtype: np.dtype, initial: object) -> np.ndarray: ...

    def launch(self, text: str, grid: Sequence[int], group: Sequence[int]) -> None: ...

    def spilled(self, which: int) -> bool: ...


def reach(array: np.ndarray) -> tuple[int, int]:
    """Bytes before the first element, and bytes in all, that an array's strides reach."""
    steps = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
    below = -sum(step for step in steps if step < 0)
    return below, below + sum(step for step in steps if step > 0) + array.itemsize


def place(array: np.ndarray, memory: Any, below: int) -> None:
    """Write an array into memory with its own strides, and nothing between its elements."""
    once = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)  # what is repeated, once
    np.ndarray(array.shape, array.dtype, memory, below, array.strides)[once] = array[once]
