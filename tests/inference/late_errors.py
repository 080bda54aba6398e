"""Errors that MLX's own thread meets, and reports in a later evaluation, or in none where NumPy asks for the values.

A program, run by `test_fallback`: `python -m tests.inference.late_errors work|values|to_numpy`. MLX (0.32) may count
such a task as active for ever, and with more than ten of those waits for ever. So each process fails eight times.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager

import mlx.core as mx
import pytest

from longmamba_mlx.ops.cpu.arrays import to_numpy
from longmamba_mlx.ops.values import values
from tests.inference.test_fallback import WORK, stand_ins_for_kernels, works_on

READERS = {"values": values, "to_numpy": to_numpy}


def poison() -> mx.array:
    """A zero that MLX's thread cannot compute."""
    return mx.linalg.inv(mx.zeros((2, 2)), stream=mx.cpu).sum() * 0


def work_goes_on() -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, contextmanager(stand_ins_for_kernels)(monkeypatch) as kernels:
        kernels.poison = poison
        for what in WORK:
            works_on(what, "mamba2", kernels, lambda calls: {0})


def errors_are_never_hidden(name: str) -> None:
    """NumPy alone hides them, or does not, as it happens."""
    for _ in range(8):
        with pytest.raises(RuntimeError, match="Inverse"):
            READERS[name](mx.ones(3) + poison())


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work_goes_on()
    else:
        errors_are_never_hidden(sys.argv[1])
