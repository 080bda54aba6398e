"""Where the entries of a stored (uncompressed) zip lie in its file, every offset checked.

Python's `zipfile` would do for honest files. This reader refuses what only a hostile one has: entries that
overlap, that are compressed or encrypted, that have one name in the directory and another in front of the
data, a directory that does not end where the file does.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import IO

from longmamba_mlx.errors import ModelError

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")

_MAX_ENTRIES = 100_000
_MAX_DIRECTORY = 32 << 20
_ENCRYPTED = 0x2041  # encrypted, strongly encrypted, or with hidden names
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF


class BrokenZipError(ModelError):
    """A zip file that is broken, hostile or not of the plain kind. Callers say whose file it is."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The bytes [start, start + size) of the file."""

    start: int
    size: int


@dataclass(frozen=True, slots=True)
class _Directory:
    start: int
    size: int
    entries: int


def zip_entries(file: IO[bytes]) -> dict[str, Entry]:
    """Name -> place of every entry. Reads the directory and one small header per entry, no data.

    Raises BrokenZipError.
    """
    directory = _find(file)
    file.seek(directory.start)
    raw = file.read(directory.size)
    found: dict[str, Entry] = {}
    spans: list[tuple[int, int]] = []
    position = 0
    for _ in range(directory.entries):
        name, offset, size, position = _central(raw, position)
        entry = _local(file, name, offset, size, directory.start)
        if name in found:
            raise BrokenZipError(f"two entries are called {name[:60]}")
        found[name] = entry
        spans.append((offset, entry.start + size))
    if position != len(raw):
        raise BrokenZipError("its directory has more in it than it counts")
    spans.sort()
    if any(start < end for (_, end), (start, _) in pairwise(spans)):
        raise BrokenZipError("its entries overlap")
    return found


def _find(file: IO[bytes]) -> _Directory:
    size = os.fstat(file.fileno()).st_size
    end_at = size - _END.size
    if end_at < 0:
        raise BrokenZipError("it is cut short or no zip file")
    signature, disk, first, here, entries, length, start, comment = _END.unpack(_read(file, end_at, _END.size))
    if signature != b"PK\5\6" or comment:
        raise BrokenZipError("it is cut short or no zip file")
    if disk or first or here != entries:
        raise BrokenZipError("it is one part of a zip in several parts")
    directory = _find64(file, end_at)
    if directory is None:
        directory = _Directory(start, length, entries)
        end = end_at
    else:
        # The small fields repeat the large ones, or say "look there".
        pairs = ((entries, directory.entries, _FULL16), (length, directory.size, _FULL32),
                 (start, directory.start, _FULL32))  # fmt: skip
        if any(small not in (large, full) for small, large, full in pairs):
            raise BrokenZipError("its directory is described twice, differently")
        end = end_at - _LOCATOR.size - _END64.size
    if directory.entries > _MAX_ENTRIES or directory.size > _MAX_DIRECTORY:
        raise BrokenZipError(f"it has {directory.entries} entries, more than {_MAX_ENTRIES}")
    if directory.start + directory.size != end:
        raise BrokenZipError("its directory is not where it says")
    return directory


def _find64(file: IO[bytes], end_at: int) -> _Directory | None:
    """The directory from the 64-bit records, if there are any."""
    locator_at = end_at - _LOCATOR.size
    if locator_at < 0:
        return None
    signature, disk, record_at, disks = _LOCATOR.unpack(_read(file, locator_at, _LOCATOR.size))
    if signature != b"PK\6\7":
        return None
    if disk or disks != 1 or record_at != locator_at - _END64.size:
        raise BrokenZipError("its 64-bit directory is not where it says")
    signature, length, _, _, disk, first, here, entries, size, start = _END64.unpack(
        _read(file, record_at, _END64.size)
    )
    if signature != b"PK\6\6" or length != _END64.size - 12 or disk or first or here != entries:
        raise BrokenZipError("its 64-bit directory is broken")
    return _Directory(start, size, entries)


def _central(raw: bytes, position: int) -> tuple[str, int, int, int]:
    """One record of the directory -> name, offset of the local header, size of the data, the next position."""
    if position + _CENTRAL.size > len(raw):
        raise BrokenZipError("its directory is cut short")
    fields = _CENTRAL.unpack_from(raw, position)
    signature, _, _, flags, method, _, _, _, packed, size, name_size, extra_size, comment_size, disk, _, _, at = fields
    name_at = position + _CENTRAL.size
    extra_at = name_at + name_size
    end = extra_at + extra_size + comment_size
    if signature != b"PK\1\2" or end > len(raw):
        raise BrokenZipError("its directory is broken")
    name = _name(raw[name_at:extra_at])
    size, packed, at = _widened(raw[extra_at : extra_at + extra_size], size, packed, at)
    if flags & _ENCRYPTED:
        raise BrokenZipError("it is encrypted")
    if method or packed != size:
        raise BrokenZipError(
            f"its entry {name[:60]} is compressed, which torch.save never does",
            hint="a TorchScript program, perhaps? Use a revision with safetensors files",
        )
    if disk:
        raise BrokenZipError("it is one part of a zip in several parts")
    return name, at, size, end


def _widened(extra: bytes, size: int, packed: int, at: int) -> tuple[int, int, int]:
    """Read values that do not fit 32 bits from the extra field 1, in its order."""
    if _FULL32 not in (size, packed, at):
        return size, packed, at
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        body = extra[position + 4 : position + 4 + length]
        if kind == 1 and len(body) == length:
            wide = list(struct.unpack_from(f"<{length // 8}Q", body))
            values = [wide.pop(0) if value == _FULL32 and wide else value for value in (size, packed, at)]
            return values[0], values[1], values[2]
        position += 4 + length
    return size, packed, at


def _local(file: IO[bytes], name: str, offset: int, size: int, limit: int) -> Entry:
    """The offset of the data, from the local header, which must match the directory."""
    if offset + _LOCAL.size > limit:
        raise BrokenZipError(f"its entry {name[:60]} lies outside the file")
    fields = _LOCAL.unpack(_read(file, offset, _LOCAL.size))
    signature, _, flags, method, name_size, extra_size = fields[0], fields[1], fields[2], fields[3], *fields[-2:]
    start = offset + _LOCAL.size + name_size + extra_size
    if signature != b"PK\3\4" or method or flags & _ENCRYPTED or start + size > limit:
        raise BrokenZipError(f"its entry {name[:60]} is broken or lies outside the file")
    if _name(_read(file, offset + _LOCAL.size, name_size)) != name:
        raise BrokenZipError(f"its entry {name[:60]} has two names")
    return Entry(start, size)


def _name(raw: bytes) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        name = ""
    if not name or not name.isprintable():
        raise BrokenZipError("one of its entries has an impossible name")
    return name


def _read(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise BrokenZipError("it is cut short")
    return data
