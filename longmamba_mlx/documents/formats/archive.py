"""Read untrusted ZIP archives in memory, with limits on entries, sizes and compression ratio."""

from __future__ import annotations

import zipfile
from typing import IO

from longmamba_mlx.documents.formats.builder import Refused

MOST_ENTRIES = 10_000
MOST_ENTRY_BYTES = 64 << 20
MOST_BYTES = 512 << 20  # of all entries that are read
_RATIO, _RATIO_FROM = 200, 1 << 20  # honest files reach 200:1 only where they are small


class Entry:
    """A stream over one entry, with `read` for parsers. Raises Refused beyond the archive's limits."""

    def __init__(self, archive: Archive, stream: IO[bytes], packed: int) -> None:
        self._archive, self._stream, self._packed = archive, stream, packed
        self._count = 0

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, or all that is left."""
        block = self._stream.read(min(size, MOST_ENTRY_BYTES) if size >= 0 else MOST_ENTRY_BYTES + 1)
        self._count += len(block)
        self._archive.budget -= len(block)
        bomb = self._count > _RATIO_FROM and self._count > _RATIO * max(self._packed, 1)
        if bomb or self._count > MOST_ENTRY_BYTES or self._archive.budget < 0:
            raise Refused("bomb")
        return block


class Archive:
    """A ZIP archive's names and contents. Raises Refused if it is damaged, encrypted or too large."""

    def __init__(self, file: IO[bytes]) -> None:
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, UnicodeDecodeError):
            raise Refused("damaged") from None
        if len(self._zip.filelist) > MOST_ENTRIES:
            raise Refused("bomb")
        self.budget = MOST_BYTES
        self.names = frozenset(self._zip.NameToInfo)

    def open(self, name: str) -> Entry:
        """A stream over the entry of that name. Raises Refused when there is none."""
        info = self._zip.NameToInfo.get(name)
        if info is None:
            raise Refused("damaged")
        if info.flag_bits & 1:
            raise Refused("locked")
        if info.file_size > max(_RATIO_FROM, _RATIO * info.compress_size):  # told before it is paid for
            raise Refused("bomb")
        return Entry(self, self._zip.open(info), info.compress_size)

    def read(self, name: str) -> bytes:
        """The content of the entry of that name."""
        return self.open(name).read()
