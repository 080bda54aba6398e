"""Facts about NumPy's BLAS on this machine: its threads, and which matrix-vector product reads memory fastest."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

_AVX512 = {"SkylakeX", "Cooperlake", "SapphireRapids"}  # OpenBLAS' names of its kernels


@lru_cache(maxsize=1)
def libraries() -> Any:
    """threadpoolctl's view of the loaded libraries; looked up once, since that takes a millisecond."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def single_threaded() -> AbstractContextManager[object]:
    """Context manager: NumPy's matrix products use one thread."""
    limits: AbstractContextManager[object] = libraries().limit(limits=1, user_api="blas")
    return limits


@lru_cache(maxsize=1)
def has_one_thread() -> bool:
    """Whether a matrix product has one thread here. Two threads of a BLAS together read a matrix faster than one
    compiled loop."""
    return all(library["num_threads"] == 1 for library in libraries().info())


@lru_cache(maxsize=1)
def dots_read_faster() -> bool:
    """Whether dot products row by row read a matrix faster than OpenBLAS' matrix-vector product.

    With its AVX-512 kernels they do, 24 GB/s against 15 on one core, but more cores share the product; with those for
    AVX2 they do not (13 against 15).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    kernels = {library.get("architecture") for library in libraries().info()}
    return cores <= 2 and not kernels.isdisjoint(_AVX512)
