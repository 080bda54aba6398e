"""The header of a safetensors file, checked before anything else reads the file.

The format (8 bytes of little-endian header length, a JSON header, the data) promises contiguous tensors and
an exact size, but MLX's reader multiplies shapes without an overflow check: a file of 100 bytes can make it
read foreign memory. So nothing reaches `mx.load` or `safeio.load_arrays` that has not passed here.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from longmamba_mlx.errors import LongMambaError

MAX_HEADER = 1 << 20
MAX_DIMENSIONS = 32
MAX_EXTENT = 2**31 - 1  # MLX keeps shapes as int32
ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}


class SafetensorsError(LongMambaError):
    """A safetensors file that is broken, hostile or not the expected one. Callers say whose file it is."""


class UnreadableError(SafetensorsError):
    """The file could not be read just now (permission, disk): that says nothing about its content."""


def check_safetensors(path: str | Path, *, max_header: int = MAX_HEADER) -> dict[str, Any]:
    """Check the header of a safetensors file against the format and the file's size. Reads the header only.

    Returns it: tensor name -> {"dtype", "shape", "data_offsets"}, and "__metadata__" (str -> str) when there.
    Raises SafetensorsError for whatever the format forbids: a header over `max_header` bytes, JSON with a key
    twice, unknown dtypes, extents that are no int32 >= 0, sizes that contradict the offsets, overlaps, holes,
    a total that is not the file's size. Its message completes "<file>: ...".
    """
    with open_regular(path) as file:
        return read_header(file, max_header)[0]


@contextmanager
def open_regular(path: str | Path) -> Iterator[IO[bytes]]:
    """Open an ordinary file for reading; SafetensorsError when that fails or it is something else."""
    try:
        # O_NONBLOCK: opening a pipe that nobody writes to must not hang.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise UnreadableError(f"it cannot be opened ({error.strerror})") from None
    except ValueError:
        raise SafetensorsError("it has an impossible name") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SafetensorsError("it is not an ordinary file")
    with os.fdopen(descriptor, "rb") as file:
        try:
            yield file
        except OSError as error:
            raise UnreadableError(f"it cannot be read ({error.strerror})") from None


def read_header(file: IO[bytes], max_header: int = MAX_HEADER) -> tuple[dict[str, Any], bytes, int]:
    """-> checked header, its raw bytes, bytes of data; `file` stands where the data begins."""
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > size - 8:
        raise SafetensorsError("it is cut short or no safetensors file")
    if length > max_header:
        raise SafetensorsError(f"its header of {length} bytes is over the limit of {max_header}")
    raw = file.read(length)
    header = _parse(raw)
    _check_layout(header, size - 8 - length)
    return header, raw, size - 8 - length


def short(value: object) -> str:
    """A bounded, printable rendering of something that came from a file."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_refuse)
    except (ValueError, RecursionError) as error:
        raise SafetensorsError(f"its header is no sound JSON: {short(str(error))}") from None
    if not isinstance(header, dict) or not raw.startswith(b"{"):
        raise SafetensorsError("its header is no JSON object")
    if header.get("__metadata__", "") is None:  # MLX writes null for "no metadata"
        del header["__metadata__"]
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise SafetensorsError("its metadata is no table of texts")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key stands twice")
    return table


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is no whole number")


def _check_layout(header: Mapping[str, Any], data_bytes: int) -> None:
    spans = sorted(_check_entry(name, entry) for name, entry in header.items() if name != "__metadata__")
    position = 0
    for start, end, name in spans:
        if start != position:
            kind = "overlaps another one" if start < position else "has a hole before it"
            raise SafetensorsError(f"tensor {short(name)} {kind}")
        position = end
    if position != data_bytes:
        raise SafetensorsError(f"it holds {data_bytes} bytes of data, its header tells of {short(position)}")


def _check_entry(name: str, entry: object) -> tuple[int, int, str]:
    """-> start, end, name of one tensor, once its entry is known to be sound."""
    label = short(name)
    if not name.isprintable():
        raise SafetensorsError(f"tensor {label} has control characters in its name")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise SafetensorsError(f"tensor {label} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise SafetensorsError(f"tensor {label} has the unknown dtype {short(dtype)}")
    if not _are_extents(shape):
        raise SafetensorsError(f"tensor {label} has an impossible shape")
    # `type(...) is int`, not isinstance: True is an int to Python.
    if not isinstance(offsets, list) or len(offsets) != 2 or any(type(value) is not int for value in offsets):
        raise SafetensorsError(f"tensor {label} has impossible offsets")
    count = ITEM_BYTES[dtype]
    for extent in shape:  # Python's integers do not overflow; MLX's product of sizes does
        count *= extent
    start, end = offsets
    if start < 0 or end - start != count:
        raise SafetensorsError(f"tensor {label} has offsets that contradict its shape")
    return start, end, name


def _are_extents(shape: object) -> bool:
    return (
        isinstance(shape, list)
        and len(shape) <= MAX_DIMENSIONS
        and all(type(extent) is int and 0 <= extent <= MAX_EXTENT for extent in shape)
    )
