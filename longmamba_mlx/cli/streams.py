"""Standard streams that are closed, full or no longer read."""

from __future__ import annotations

import errno
import os
import sys
from typing import IO

from longmamba_mlx.errors import DiskError

_NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF))


def open_missing() -> None:
    """Give the descriptors 0, 1 and 2 to the null device where they are closed: no other file must get one of them.

    Raises DiskError where standard output was closed: an answer would go nowhere.
    """
    missing = []
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free one, which is this
            missing.append(descriptor)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - for the process's life
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115
        if 1 in missing:
            raise DiskError("Standard output is closed.", hint="Send it somewhere: > answer.txt")


def output_error(error: OSError) -> DiskError | None:
    """The error to show for output that cannot be written; None for an error of another kind."""
    if error.errno not in _NO_ROOM:
        return None
    return DiskError(f"Output cannot be written: {error.strerror}.", hint="Free some space, or write it elsewhere.")


def flush() -> None:
    """Write what is still buffered for standard output. Raises OSError, after which nothing more is written to it."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python tries again at exit, and prints a traceback
        raise


def is_null(stream: IO[str]) -> bool:
    """Whether a stream reads the null device: nothing was piped in."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(os.devnull))
    except OSError:  # a stream without a descriptor
        return False
