"""`pytorch_model.bin` without torch: checked, and rewritten as safetensors tensor by tensor.

torch.save writes a stored zip: data.pkl describes the tensors, data/0, data/1, ... are their storages.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.conversion.torch_pickle.tensors import MAX_BYTES, TensorView, read_tensor_table
from longmamba_mlx.conversion.torch_pickle.zip_directory import BrokenZipError, Entry, zip_entries
from longmamba_mlx.errors import ModelError
from longmamba_mlx.storage.safetensors_header import SafetensorsError, open_regular

_NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "u1",
}  # fmt: skip
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_LFS = b"version https://git-lfs"
_SHARES = 4  # tied tensors are written once each; this many times the file is more than any checkpoint needs
_HINT = "download it again, or use a revision with safetensors files"


@dataclass(frozen=True, slots=True)
class _Placed:
    """A tensor and the offset of its storage in the file."""

    view: TensorView
    start: int


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """All tensors of a torch.save file, as copies; bfloat16 as uint16 with the same bits.

    Runs nothing from the file. Raises ModelError with a hint for a file that is broken, hostile, in an old
    format or holds anything but a table of tensors.
    """
    with _opened(path) as (tensors, window):
        return {name: _array(placed, window).copy() for name, placed in tensors.items()}


def to_safetensors(path: Path, target: Path) -> None:
    """Write the tensors of a torch.save file as a safetensors file, holding one tensor in memory at most.

    float64 becomes float32, which is what every model here computes in. Raises as `read_tensors` does, and
    OSError when `target` cannot be written.
    """
    with _opened(path) as (tensors, window):
        entries: dict[str, object] = {}
        position = 0
        for name, placed in tensors.items():
            dtype = placed.view.storage.dtype.replace("F64", "F32")
            end = position + _size(placed.view) * _bytes(dtype)
            entries[name] = {"dtype": dtype, "shape": placed.view.shape, "data_offsets": [position, end]}
            position = end
        header = json.dumps(entries, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        with target.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for placed in tensors.values():
                array = _array(placed, window)
                array = array.astype("<f4") if placed.view.storage.dtype == "F64" else array
                file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[dict[str, _Placed], mmap.mmap]]:
    """The checked tensors of a file, and its bytes."""
    try:
        with open_regular(path) as file:
            tensors = _checked(file)
            # Closed when the last view on it is gone: an error may carry one in its traceback.
            yield tensors, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (ModelError, SafetensorsError) as error:
        raise ModelError(f"{path.name}: {error}", hint=error.hint or _HINT) from None


def _checked(file: IO[bytes]) -> dict[str, _Placed]:
    _refuse_other_formats(file)
    entries = zip_entries(file)
    root = _root(entries)
    _refuse_other_contents(file, entries, root)
    table = read_tensor_table(_content(file, entries[f"{root}data.pkl"], MAX_BYTES))
    placed = {name: _place(name, view, entries, root) for name, view in table.items()}
    _refuse_sharing(table, entries, root)
    return placed


def _refuse_other_formats(file: IO[bytes]) -> None:
    start = file.read(512)
    if start.startswith(_LFS):
        raise ModelError("it is a pointer of Git LFS, not the file itself", hint="fetch it with: git lfs pull")
    if start.startswith(_LEGACY) or start[257:262] == b"ustar" or start[:1] == b"\x80":
        raise ModelError(
            "it is in the format that PyTorch wrote before version 1.6, which is not read",
            hint="use a revision with safetensors files, or load and save it once with a newer PyTorch",
        )


def _root(entries: Mapping[str, Entry]) -> str:
    roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("data.pkl")]
    if len(roots) != 1 or roots[0].count("/") != 1 or not roots[0].endswith("/"):
        raise BrokenZipError("it holds no table of tensors (data.pkl)")
    return roots[0]


def _refuse_other_contents(file: IO[bytes], entries: Mapping[str, Entry], root: str) -> None:
    if f"{root}constants.pkl" in entries or any(name.startswith(f"{root}code/") for name in entries):
        raise ModelError(
            "it is a TorchScript program, not a table of tensors", hint="use a revision with safetensors files"
        )
    order = entries.get(f"{root}byteorder")
    if order is not None and _content(file, order, 16).strip() != b"little":
        raise ModelError("its numbers are big-endian, which is not read", hint="save it on a little-endian machine")


def _content(file: IO[bytes], entry: Entry, most: int) -> bytes:
    if entry.size > most:
        raise BrokenZipError(f"one of its descriptions is larger than {most:,} bytes")
    file.seek(entry.start)
    return file.read(entry.size)


def _place(name: str, view: TensorView, entries: Mapping[str, Entry], root: str) -> _Placed:
    storage = view.storage
    entry = entries.get(f"{root}data/{storage.key}")
    if entry is None:
        raise BrokenZipError(f"the numbers of {ascii(name)[1:-1][:80]} are missing")
    if entry.size != storage.count * _bytes(storage.dtype):
        raise BrokenZipError(f"the numbers of {ascii(name)[1:-1][:80]} have another size than its table says")
    return _Placed(view, entry.start)


def _refuse_sharing(table: Mapping[str, TensorView], entries: Mapping[str, Entry], root: str) -> None:
    """Thousands of tensors on one storage would make terabytes of a small file."""
    there = sum(entries[f"{root}data/{key}"].size for key in {view.storage.key for view in table.values()})
    asked = sum(_size(view) * _bytes(view.storage.dtype) for view in table.values())
    if asked > _SHARES * there:
        raise BrokenZipError(f"its tensors would take {asked:,} bytes, its storages hold {there:,}")


def _array(placed: _Placed, window: mmap.mmap) -> NDArray[Any]:
    """The tensor as a view on the file."""
    view = placed.view
    dtype = np.dtype(_NUMPY[view.storage.dtype])
    if not _size(view):
        return np.empty(view.shape, dtype)
    flat: NDArray[Any] = np.frombuffer(window, dtype, view.storage.count, placed.start)[view.offset :]
    # Checked when the table was read: no index of this view lies outside `flat`.
    strides = tuple(stride * dtype.itemsize for stride in view.strides)
    return np.lib.stride_tricks.as_strided(flat, view.shape, strides, writeable=False)


def _size(view: TensorView) -> int:
    count = 1
    for extent in view.shape:
        count *= extent
    return count


def _bytes(dtype: str) -> int:
    return np.dtype(_NUMPY[dtype]).itemsize
