"""Write a safetensors file tensor by tensor: MLX's own writer needs all of them in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

# In the order in which bytes are aligned: no tensor then begins at an odd place.
_DTYPES = {mx.float32: "F32", mx.uint32: "U32", mx.bfloat16: "BF16", mx.float16: "F16", mx.uint8: "U8"}


def write_tensors(
    weights: dict[str, mx.array],
    names: Sequence[str],
    metadata: Mapping[str, str],
    advance: Callable[[int], None],
    path: Path,
) -> None:
    """Take the tensors of `names` out of `weights`, evaluate and write one after the other to `path`.

    `advance` is called with the bytes of each. Raises OSError, KeyError for a dtype that no model has.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    position = 0
    order = sorted(names, key=lambda name: (-weights[name].itemsize, name))
    for name in order:
        array = weights[name]
        end = position + array.nbytes
        header[name] = {"dtype": _DTYPES[array.dtype], "shape": array.shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            data = _bytes(weights.pop(name))
            file.write(data)
            advance(data.nbytes)


def _bytes(array: mx.array) -> memoryview:
    """An array's little-endian bytes in row-major order."""
    plain = array if array.dtype != mx.bfloat16 else array.view(mx.uint16)  # NumPy has no bfloat16
    return np.ascontiguousarray(np.array(plain, copy=False)).reshape(-1).view(np.uint8).data
