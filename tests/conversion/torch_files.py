"""torch.save files built by hand, honest and hostile: a zip writer and the instructions of a pickle."""

from __future__ import annotations

import struct
from pathlib import Path

TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
ORDERED = b"ccollections\nOrderedDict\n"


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    raw = value.to_bytes(8, "little", signed=True)
    return b"\x8a\x08" + raw


def whole(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(kind: str = "FloatStorage", key: str = "0", count: int = 4) -> bytes:
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(
    shape: tuple[int, ...] = (4,),
    strides: tuple[int, ...] = (1,),
    offset: int = 0,
    *,
    of: bytes | None = None,
    more: bytes = b"\x89" + ORDERED + b")R",
) -> bytes:
    inner = (storage() if of is None else of) + number(offset) + whole(shape) + whole(strides) + more
    return TENSOR + b"(" + inner + b"tR"


def table(*pairs: bytes) -> bytes:
    """A pickle of a dict from instructions for keys and values in turn."""
    return b"\x80\x02}(" + b"".join(pairs) + b"u."


def one(value: bytes) -> bytes:
    """A pickle of {"w": value}."""
    return table(text("w"), value)


def write_zip(path: Path, entries: dict[str, bytes] | list[tuple[str, bytes]]) -> Path:
    """A stored zip as torch writes it, entry by entry in this order; names may repeat."""
    body, central = b"", b""
    pairs = list(entries.items()) if isinstance(entries, dict) else entries
    for name, data in pairs:
        raw = name.encode()
        central += struct.pack(
            "<4s6H3L5H2L",
            b"PK\1\2", 0, 0, 0x800, 0, 0, 0, 0, len(data), len(data), len(raw), 0, 0, 0, 0, 0, len(body),
        ) + raw  # fmt: skip
        body += struct.pack("<4s5H3L2H", b"PK\3\4", 0, 0x800, 0, 0, 0, 0, len(data), len(data), len(raw), 0)
        body += raw + data
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(pairs), len(pairs), len(central), len(body), 0)
    path.write_bytes(body + central + end)
    return path


def write_torch(path: Path, pickled: bytes, data: bytes = b"\0" * 16, **more: bytes) -> Path:
    """A torch.save file with one storage."""
    entries = {"archive/data.pkl": pickled, "archive/byteorder": b"little", "archive/data/0": data}
    return write_zip(path, entries | {f"archive/{name}": content for name, content in more.items()})
