"""Check the header of a safetensors file before anything else reads the file.

MLX's reader multiplies shapes without an overflow check: a file of 100 bytes can make it read foreign memory. So
nothing reaches `mx.load` or `checked_safetensors.load_arrays` that has not passed here. The `safetensors` library
checks the layout; the checks of this module are for what it accepts and MLX or this package must not see.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError, safe_open

from longmamba_mlx.errors import LongMambaError

MAX_HEADER = 1 << 20
MAX_DIMENSIONS = 32
MAX_EXTENT = 2**31 - 1  # MLX stores shapes as int32
# The format's dtypes but F4 and F6, which MLX lacks.
DTYPES = frozenset("BOOL U8 I8 U16 I16 U32 I32 U64 I64 F8_E4M3 F8_E5M2 F8_E8M0 F16 BF16 F32 F64 C64".split())


class SafetensorsError(LongMambaError):
    """A safetensors file that is broken, hostile or not the expected one. The caller names the file."""


class UnreadableError(SafetensorsError):
    """The file could not be read at the moment (permission, disk); its content may be valid."""


def check_safetensors(path: str | Path, *, max_header: int = MAX_HEADER) -> dict[str, Any]:
    """Check the header of a safetensors file against the format and the file's size, without reading the data.

    Returns the header: tensor name -> {"dtype", "shape", "data_offsets"}, and "__metadata__" (str -> str) if present.
    Raises SafetensorsError for whatever the format forbids: a header over `max_header` bytes, invalid JSON, duplicate
    keys, unknown dtypes, extents outside int32, sizes that contradict the offsets, overlaps, holes, a total that is
    not the file's size. Its message completes "<file>: ...".
    """
    with open_regular(path) as file:
        return read_header(file, path, max_header)[0]


@contextmanager
def open_regular(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a regular file for reading. Raises SafetensorsError when that fails or it is something else."""
    try:
        # O_NONBLOCK: opening a pipe without a writer must not hang.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise UnreadableError(f"it cannot be opened ({error.strerror})") from None
    except ValueError:
        raise SafetensorsError("its name is invalid") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SafetensorsError("it is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        try:
            yield file
        except OSError as error:
            raise UnreadableError(f"it cannot be read ({error.strerror})") from None


def read_header(file: IO[bytes], path: str | Path, max_header: int = MAX_HEADER) -> tuple[dict[str, Any], bytes, int]:
    """Read and check the header of an open file -> header, its raw bytes, bytes of data. `path` is the file's.

    Leaves `file` at the beginning of the data. Raises SafetensorsError.
    """
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > size - 8:
        raise SafetensorsError("it is truncated or not a safetensors file")
    if length > max_header:
        raise SafetensorsError(f"its header of {length} bytes is over the limit of {max_header}")
    raw = file.read(length)
    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise SafetensorsError(f"its header is invalid: {short(str(error))}") from None
    header = _parse(raw)
    for name, entry in header.items():
        if name != "__metadata__":
            _check_entry(name, entry)
    return header, raw, size - 8 - length


def short(value: object) -> str:
    """A bounded, printable rendering of something that came from a file."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _parse(raw: bytes) -> dict[str, Any]:
    """The header as a table. The library ignores blanks before it, duplicate tensor names and unknown keys."""
    if not raw.startswith(b"{"):
        raise SafetensorsError("its header does not begin with an object")
    try:
        header: dict[str, Any] = json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise SafetensorsError(f"its header is not valid JSON: {short(str(error))}") from None
    if header.get("__metadata__", "") is None:  # MLX writes null for "no metadata"
        del header["__metadata__"]
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("duplicate key")
    return table


def _check_entry(name: str, entry: dict[str, Any]) -> None:
    """Refuse what the format allows and MLX, a terminal or this package's readers must not see."""
    label = short(name)
    if not name.isprintable():
        raise SafetensorsError(f"tensor {label} has control characters in its name")
    if entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise SafetensorsError(f"tensor {label} is not described by dtype, shape and data_offsets")
    if entry["dtype"] not in DTYPES:
        raise SafetensorsError(f"tensor {label} has the unsupported dtype {short(entry['dtype'])}")
    if len(entry["shape"]) > MAX_DIMENSIONS or any(extent > MAX_EXTENT for extent in entry["shape"]):
        raise SafetensorsError(f"tensor {label} has a shape beyond the limits of MLX")
