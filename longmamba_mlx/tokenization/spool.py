"""Hold token ids in a growing array that moves to a temporary file when it becomes large."""

from __future__ import annotations

import tempfile

import numpy as np
from numpy.typing import NDArray

MOST_IN_MEMORY = 16 << 20  # bytes; beyond, ids are in an unnamed temporary file, 4 bytes each
_ID = np.dtype("<u4")


class Spool:
    """Token ids (n,) uint32, appended piece by piece and read back in slices of step 1."""

    def __init__(self, most_in_memory: int | None = None) -> None:
        most = MOST_IN_MEMORY if most_in_memory is None else most_in_memory
        # The file has no name, so the system frees its space when this process ends, however that happens.
        self._file = tempfile.SpooledTemporaryFile(max_size=most)  # noqa: SIM115
        self._length = 0

    def append(self, ids: NDArray[np.uint32]) -> None:
        """Append ids (m,). Raises OSError when the disk is full."""
        self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(ids, _ID).tobytes())
        self._length += len(ids)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice, /) -> NDArray[np.uint32]:
        start, stop, step = part.indices(self._length)
        if step != 1:
            raise ValueError("ids are read in slices of step 1")
        self._file.seek(start * _ID.itemsize)
        data = self._file.read(max(stop - start, 0) * _ID.itemsize)
        return np.frombuffer(data, _ID).astype(np.uint32, copy=False)
