"""Sandbox limits of the parsing process: memory, CPU time, no files, no sockets, no child processes."""

from __future__ import annotations

import contextlib
import resource

_OPEN = 3  # standard input, output and error are open already, nothing else may be
# Bytes of address space; macOS does not enforce it, there the parent watches. Measured: an HTML file takes 19 times its
# size, libraries included; a packed one is several times as large inside.
_MEMORY, _MEMORY_PER_BYTE, _MOST_MEMORY = 400 << 20, 64, 1 << 30


def memory_for(size: int) -> int:
    """Bytes of memory that a file of `size` bytes may take."""
    return min(_MEMORY + _MEMORY_PER_BYTE * size, _MOST_MEMORY)


def lock_down(seconds: int, memory: int) -> None:
    """Apply the limits to this process for good. All imports must have happened before."""
    limits = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _OPEN),
        (resource.RLIMIT_AS, memory),
    ]
    if hasattr(resource, "RLIMIT_NPROC"):
        limits.append((resource.RLIMIT_NPROC, 0))
    # Beyond the soft limit the process is told so (SIGXCPU), which ends it; the hard one would only kill it.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 2))
    for name, value in limits:
        # A system that does not know a limit, or has set a lower one, keeps its own.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(name, (value, value))
