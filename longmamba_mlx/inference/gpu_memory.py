"""Memory of a GPU while a model works: kept resident, and bounded beside it.

On macOS 15 and later MLX keeps no buffer resident unless a wired limit is set, so that a large model may be paged out
between two tokens; and its cache of freed buffers may grow to almost all memory. Both limits are MLX's own, for the
whole process; here they are changed only during prefill and decode.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx

CLEARED_EVERY = 256
"""Decoded tokens after which freed buffers are given back; keys and values grow in steps of as many tokens."""

_MOST_CACHE = 2 << 30
_CACHE_SHARE = 8  # of the working set: an eighth on a small machine


@dataclass(frozen=True, slots=True)
class Limits:
    """In bytes: `wired` is kept resident, and freed buffers of at most `cache` are kept for reuse."""

    wired: int
    cache: int


def on_gpu() -> bool:
    """Whether models run on a GPU now."""
    return bool(mx.default_device().type == mx.DeviceType.gpu)


def limits() -> Limits | None:
    """The limits for this machine; None without a GPU that says how much it can work with."""
    if not on_gpu():
        return None
    recommended = int(mx.device_info().get("max_recommended_working_set_size", 0))
    return Limits(recommended, min(_MOST_CACHE, recommended // _CACHE_SHARE)) if recommended else None


class _Users:
    """Counts who works on the GPU: the first one sets the limits, the last one restores what was there before."""

    def __init__(self) -> None:
        self._lock, self._count = threading.Lock(), 0
        self._cache = 0
        self._wired: int | None = None  # the limits before; None where the wired one was left as it is

    def enter(self, chosen: Limits) -> None:
        with self._lock:
            if self._count == 0:
                self._cache, self._wired = int(mx.set_cache_limit(chosen.cache)), _set_wired(chosen.wired)
            self._count += 1

    def leave(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                mx.synchronize()  # a wired limit must not change under work that is under way
                if self._wired is not None:
                    _set_wired(self._wired)
                mx.set_cache_limit(self._cache)


_USERS = _Users()


def _set_wired(size: int) -> int | None:
    """Set the wired limit and return the one before; None where the system does not allow this size."""
    try:
        return int(mx.set_wired_limit(size))
    except (RuntimeError, ValueError):  # more than the system's own limit (sysctl iogpu.wired_limit_mb)
        return None


@contextmanager
def resident() -> Iterator[None]:
    """Context manager: MLX keeps its buffers resident and its cache bounded. Without a GPU it does nothing.

    May be entered by several at once, and left in any order.
    """
    chosen = limits()
    if chosen is None:
        yield
        return
    _USERS.enter(chosen)
    try:
        yield
    finally:
        _USERS.leave()


def give_back() -> None:
    """Give freed buffers back to the system. Does nothing without a GPU."""
    if on_gpu():
        mx.clear_cache()
