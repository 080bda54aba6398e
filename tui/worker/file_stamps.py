"""Whether the files of a document have changed on disk since it was read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from longmamba_mlx.errors import LongMambaError

Stamps = Mapping[str, tuple[int, int]]
"""By path: time of the last change (ns) and size (bytes)."""


def take_stamps(paths: Sequence[str]) -> Stamps:
    """Stamps of all files meant by `paths`, folders and patterns included; without those that cannot be looked at."""
    from longmamba_mlx.documents.gathering import gather  # with glob, which the first frame does not need

    stamps = {}
    with suppress(LongMambaError, OSError, ValueError):
        for found in gather(paths):
            if (stamp := _stamp(str(found.path))) is not None:
                stamps[str(found.path)] = stamp
    return stamps


def changed_files(stamps: Stamps) -> list[str]:
    """Names of the files whose content may have changed. One that is gone has not: there is nothing to read again."""
    return [Path(path).name for path, stamp in stamps.items() if (_stamp(path) or stamp) != stamp]


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size
