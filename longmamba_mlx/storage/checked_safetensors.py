"""Save and load arrays as safetensors files that carry the SHA-256 of their header and their data.

The format has no checksum of its own: of 2,000 state files with one flipped bit, `mx.load` read 1,997 without an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from longmamba_mlx.storage.atomic import write_atomic
from longmamba_mlx.storage.safetensors_header import MAX_HEADER, SafetensorsError, open_regular, read_header, short

if TYPE_CHECKING:
    import mlx.core as mx
    import numpy.typing as npt

    Array: TypeAlias = npt.NDArray[Any] | mx.array

Expected: TypeAlias = Mapping[str, tuple[str, tuple[int, ...]]]  # tensor name -> safetensors dtype, shape

MAX_DATA = 8 << 30
DATA_DIGEST = "sha256"
HEADER_DIGEST = "header_sha256"
_UNSIGNED = "0" * 64
_KINDS = (("uint", "U"), ("int", "I"), ("float", "F"))
_FROM_NUMPY = {"bool": "BOOL", "bfloat16": "BF16"} | {
    f"{kind}{bits}": f"{letter}{bits}" for kind, letter in _KINDS for bits in (8, 16, 32, 64)
}
_TO_NUMPY = {name: dtype for dtype, name in _FROM_NUMPY.items() if name != "BF16"}


def save_arrays(
    path: str | Path, arrays: Mapping[str, Array], metadata: Mapping[str, str], *, private: bool = True
) -> None:
    """Write arrays (NumPy or MLX, any shape, bfloat16 too) and texts as a safetensors file, atomically.

    Two metadata keys are added: "sha256" of the data section, and "header_sha256" of the header with that value zeroed,
    so that any changed bit is detected. `private` as in `write_atomic`. Raises DiskError; TypeError for arrays or
    metadata that the format cannot hold.
    """
    reserved = {DATA_DIGEST, HEADER_DIGEST} & metadata.keys()
    if reserved or not all(isinstance(text, str) for text in metadata.values()):
        raise TypeError(f"metadata must be texts, and no key {DATA_DIGEST} or {HEADER_DIGEST}")
    parts = {name: _as_bytes(array) for name, array in sorted(arrays.items())}
    digest = hashlib.sha256()
    entries: dict[str, Any] = {}
    position = 0
    for name, (dtype, shape, content) in parts.items():
        digest.update(content)
        end = position + content.nbytes
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    raw = _signed_header(entries, {**metadata, DATA_DIGEST: digest.hexdigest()})

    def write(draft: Path) -> None:
        with open(draft, "wb") as file:
            file.write(len(raw).to_bytes(8, "little") + raw)
            for _, _, content in parts.values():
                file.write(content)

    write_atomic(path, write, private=private)


def _signed_header(entries: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    # The digest comes first, so that its position is known whatever the other texts hold.
    table = {"__metadata__": {HEADER_DIGEST: _UNSIGNED, **metadata}, **entries}
    raw = json.dumps(table, separators=(",", ":"), ensure_ascii=True).encode()
    raw += b" " * (-len(raw) % 8)
    if len(raw) > MAX_HEADER:
        raise TypeError(f"a header of {len(raw)} bytes is over the limit of {MAX_HEADER}")
    return raw.replace(_UNSIGNED.encode(), hashlib.sha256(raw).hexdigest().encode(), 1)


def _as_bytes(array: Array) -> tuple[str, list[int], memoryview]:
    """An array as safetensors dtype, shape, and its little-endian bytes in row-major order."""
    import numpy as np

    shape = list(array.shape)
    dtype = dtype_name(array)
    if dtype == "BF16":
        import mlx.core as mx

        array = cast("mx.array", array).view(mx.uint16)  # numpy has no bfloat16
    plain = np.ascontiguousarray(np.asarray(array)).reshape(-1)
    plain = plain.astype(plain.dtype.newbyteorder("<"), copy=False)
    return dtype, shape, plain.view(np.uint8).data


def dtype_name(array: Array) -> str:
    """The safetensors name of an array's dtype ("F32"). Raises TypeError for a dtype that cannot be stored."""
    name = getattr(array.dtype, "name", str(array.dtype).removeprefix("mlx.core."))
    if name not in _FROM_NUMPY:
        raise TypeError(f"arrays of {name} cannot be stored")
    return _FROM_NUMPY[name]


def load_arrays(
    path: str | Path, *, expected: Expected | None = None, max_bytes: int = MAX_DATA
) -> tuple[dict[str, mx.array], dict[str, str]]:
    """Read what `save_arrays` wrote -> evaluated MLX arrays, metadata without the digests.

    `expected` maps every tensor to its dtype and shape; the header is compared with it before any data is read. Raises
    SafetensorsError for an invalid or unexpected header, a data section of more than `max_bytes` bytes, or a digest
    that does not match. The message completes "<file>: ...".
    """
    import mlx.core as mx
    import numpy as np

    tensors, metadata = _load_verified(path, expected, max_bytes)
    arrays = {}
    for name, (dtype, shape, content) in tensors.items():
        plain = np.frombuffer(content, _TO_NUMPY.get(dtype, "uint16"))
        # Without a dtype MLX would convert float64 to float32.
        array = mx.array(plain, dtype=mx.float64) if dtype == "F64" else mx.array(plain)
        arrays[name] = (array.view(mx.bfloat16) if dtype == "BF16" else array).reshape(shape)
    mx.eval(arrays)
    return arrays, metadata


def load_numpy(path: str | Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Read like `load_arrays`, but into read-only NumPy arrays and without MLX; bfloat16 raises SafetensorsError."""
    import numpy as np

    tensors, metadata = _load_verified(path, None, MAX_DATA)
    arrays = {}
    for name, (dtype, shape, content) in tensors.items():
        if dtype not in _TO_NUMPY:
            raise SafetensorsError(f"tensor {short(name)} is bfloat16, which NumPy lacks")
        arrays[name] = np.frombuffer(content, _TO_NUMPY[dtype]).reshape(shape)
    return arrays, metadata


def _load_verified(
    path: str | Path, expected: Expected | None, max_bytes: int
) -> tuple[dict[str, tuple[str, tuple[int, ...], memoryview]], dict[str, str]]:
    """Check header, expectation and digests, in this order, on one open file: what is checked is what is returned."""
    with open_regular(path) as file:
        header, raw, data_bytes = read_header(file, path)
        metadata = cast("dict[str, str]", header.pop("__metadata__", {}))
        _check_expected(header, expected)
        if data_bytes > max_bytes:
            raise SafetensorsError(f"its {data_bytes} bytes are over the limit of {max_bytes}")
        data = file.read(data_bytes)
    _check_digests(raw, metadata, data)
    view = memoryview(data)
    tensors = {
        name: (entry["dtype"], tuple(entry["shape"]), view[slice(*entry["data_offsets"])])
        for name, entry in header.items()
    }
    return tensors, metadata


def _check_expected(header: Mapping[str, Any], expected: Expected | None) -> None:
    for name, entry in header.items():
        if entry["dtype"] != "BF16" and entry["dtype"] not in _TO_NUMPY:
            raise SafetensorsError(f"tensor {short(name)} has the dtype {entry['dtype']}, which is not used here")
        if expected is not None and (entry["dtype"], tuple(entry["shape"])) != expected.get(name):
            raise SafetensorsError(f"tensor {short(name)} is unexpected, or has another dtype or shape")
    if missing := sorted((expected or {}).keys() - header.keys()):
        raise SafetensorsError(f"tensor {short(missing[0])} is missing")


def _check_digests(raw: bytes, metadata: dict[str, str], data: bytes) -> None:
    """Compare both digests and remove them from `metadata`."""
    data_digest, header_digest = metadata.pop(DATA_DIGEST, ""), metadata.pop(HEADER_DIGEST, "")
    if len(data_digest) != 64 or len(header_digest) != 64:
        raise SafetensorsError("it carries no digests")
    unsigned = raw.replace(header_digest.encode(), _UNSIGNED.encode(), 1)
    if hashlib.sha256(unsigned).hexdigest() != header_digest:
        raise SafetensorsError("its header has changed since it was written")
    if hashlib.sha256(data).hexdigest() != data_digest:
        raise SafetensorsError("its data has changed since it was written")
