"""Memory of this machine and its processes, in bytes."""

from __future__ import annotations

import resource
import sys

import psutil


def resident_bytes(pid: int | None = None) -> int:
    """Resident memory of a process (this one by default); 0 when it has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def peak_bytes() -> int:
    """The largest resident memory this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def total_bytes() -> int:
    """The machine's physical memory."""
    return int(psutil.virtual_memory().total)
