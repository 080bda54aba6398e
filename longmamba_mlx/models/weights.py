"""Read the tensors of checked weight files, and compare them with a model's parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from longmamba_mlx.errors import ModelError
from longmamba_mlx.models.weight_files import AGAIN, MAX_HEADER_BYTES
from longmamba_mlx.storage.safetensors_header import SafetensorsError, check_safetensors

# Safetensors' dtypes other than float64 and 8-bit floats, as MLX names them.
_DTYPES = {
    "BOOL": mx.bool_, "U8": mx.uint8, "I8": mx.int8, "U16": mx.uint16, "I16": mx.int16, "U32": mx.uint32,
    "I32": mx.int32, "U64": mx.uint64, "I64": mx.int64, "F16": mx.float16, "BF16": mx.bfloat16, "F32": mx.float32,
    "C64": mx.complex64,
}  # fmt: skip


def read_weights(files: Sequence[Path]) -> dict[str, mx.array]:
    """All tensors of checked files, lazily loaded; float64 as float32. Raises ModelError for broken files, doubled
    names and dtypes of 8-bit floats."""
    weights: dict[str, mx.array] = {}
    for path in files:
        loaded = _read_file(path)
        doubled = weights.keys() & loaded.keys()
        if doubled:
            raise ModelError(f"{path.name} repeats the tensor {min(doubled)}.", hint=AGAIN)
        weights.update(loaded)
    return weights


def _read_file(path: Path) -> dict[str, mx.array]:
    try:
        header = check_safetensors(path, max_header=MAX_HEADER_BYTES)
    except SafetensorsError as error:
        raise ModelError(f"{path.name}: {error}", hint=AGAIN) from error
    dtypes = {name: entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
    for name, dtype in dtypes.items():
        if dtype.startswith("F8_"):
            raise ModelError(
                f"{path.name}: tensor {name[:80]} holds 8-bit floats ({dtype}), which are not read.",
                hint="Use the publisher's 16-bit checkpoint; convert -q makes it small.",
            )
    if "F64" in dtypes.values():
        return _read_with_float64(path, header)
    loaded = mx.load(str(path))
    if not isinstance(loaded, dict):
        raise ModelError(f"{path.name} is not a table of tensors.", hint=AGAIN)
    return loaded


def _read_with_float64(path: Path, header: Mapping[str, Any]) -> dict[str, mx.array]:
    """The tensors of a file that MLX refuses for its float64 ones, which become float32; read at once, not lazily."""
    content = np.memmap(path, np.uint8, mode="r")
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, end = entry["data_offsets"]
        data = content[start + first : start + end]
        if entry["dtype"] == "F64":
            array = mx.array(np.frombuffer(data, "<f8").astype(np.float32))
        else:
            array = mx.array(data).view(_DTYPES[entry["dtype"]])
        tensors[name] = array.reshape(entry["shape"])
    return tensors


def check_weights(expected: Mapping[str, mx.array], weights: Mapping[str, mx.array]) -> None:
    """Raise ModelError unless the tensors are exactly the expected parameters, in their shapes and kinds of dtype."""
    missing = sorted(expected.keys() - weights.keys())
    if missing:
        raise ModelError(_listed("The weights lack", missing), hint=AGAIN)
    unknown = sorted(weights.keys() - expected.keys())
    if unknown:
        raise ModelError(_listed("The weights hold unknown tensors:", unknown), hint="Is config.json this model's?")
    for name, array in weights.items():
        if not _same_kind(array.dtype, expected[name].dtype):
            kind = str(array.dtype).removeprefix("mlx.core.")
            raise ModelError(
                f"Tensor {name} holds {kind}, not weights of this model.", hint="Is config.json this model's?"
            )
        if array.shape != expected[name].shape:
            raise ModelError(
                f"Tensor {name} has shape {array.shape}, the config says {expected[name].shape}.",
                hint="Is config.json this model's?",
            )


def _same_kind(dtype: mx.Dtype, expected: mx.Dtype) -> bool:
    """Floats of any size for floats; packed weights and exponents exactly as they are."""
    return dtype == expected or (mx.issubdtype(dtype, mx.floating) and mx.issubdtype(expected, mx.floating))


def _listed(what: str, names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{what} {', '.join(ascii(name)[1:-1][:80] for name in names[:3])}{more}"
