"""The weight files of a model folder: which they are, checked before MLX reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from longmamba_mlx.errors import ConfigError, ModelError
from longmamba_mlx.storage.json_config import read_json
from longmamba_mlx.storage.safetensors_header import SafetensorsError, check_safetensors

INDEX = "model.safetensors.index.json"
CALIBRATION = "longmamba.safetensors"

_MAX_INDEX_BYTES = 64 << 20
_MAX_HEADER_BYTES = 16 << 20
_MAX_SHARDS = 1024
# Safetensors' dtypes other than float64 and 8-bit floats, as MLX names them.
_DTYPES = {
    "BOOL": mx.bool_, "U8": mx.uint8, "I8": mx.int8, "U16": mx.uint16, "I16": mx.int16, "U32": mx.uint32,
    "I32": mx.int32, "U64": mx.uint64, "I64": mx.int64, "F16": mx.float16, "BF16": mx.bfloat16, "F32": mx.float32,
    "C64": mx.complex64,
}  # fmt: skip
_PACKAGE = Path(__file__).parents[1]
_AGAIN = "download or convert the model again"


def file_in(folder: Path, name: str) -> Path | None:
    """The file `name` of a model folder; None where there is none.

    A link must stay within the folder, or lead to the Hub client's cache, which is made of links. Raises
    ModelError for any other: a folder from somewhere else must not pass off this machine's files as its own.
    """
    path = folder / name
    if not path.is_file():
        return None
    if not _is_own(path.resolve(), folder):
        raise ModelError(
            f"{name} of {folder.name} is a link to a file outside that folder", hint="put the file itself there"
        )
    return path


def _is_own(real: Path, folder: Path) -> bool:
    home = folder.resolve()
    if home.parent.name == "snapshots" and home.parents[1].name.startswith("models--"):
        home = home.parents[2]  # the whole cache: large files may be shared between models
    cached = real.parent.name == "blobs" and real.parents[1].name.startswith("models--")
    # Some installers make a package of links.
    return cached or real.is_relative_to(home) or folder.absolute().is_relative_to(_PACKAGE)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a folder's weights, in a fixed order.

    Those that `model.safetensors.index.json` names where there is one, else `model*.safetensors`, else every
    safetensors file but the calibration. Raises ModelError when there is none, or the index is unusable.
    """
    if file_in(folder, INDEX) is not None:
        return indexed_files(folder, INDEX)
    found = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.safetensors"))
    names = [path.name for path in found if path.name != CALIBRATION]
    files = [path for name in names if (path := file_in(folder, name)) is not None]
    if files:
        return files
    if any(folder.glob("pytorch_model*.bin")):
        raise ModelError(
            f"{folder.name} holds its weights as pytorch_model.bin, which must be converted first",
            hint="longmamba-mlx convert --hf-path FOLDER --mlx-path NEW-FOLDER",
        )
    raise ModelError(f"no weights (*.safetensors) in {folder}", hint="was the download or conversion finished?")


def indexed_files(folder: Path, index: str) -> list[Path]:
    """The files that a shard index of `folder` names; all of them are there. Raises ModelError."""
    try:
        table = read_json(folder / index, max_bytes=_MAX_INDEX_BYTES).get("weight_map")
    except ConfigError as error:
        raise ModelError(str(error), hint=error.hint or _AGAIN) from error
    if not isinstance(table, dict) or not table:
        raise ModelError(f"{index} holds no weight_map", hint=_AGAIN)
    suffix = ".bin" if index.endswith(".bin.index.json") else ".safetensors"
    names = sorted({_shard_name(name, index, suffix) for name in table.values()})
    if len(names) > _MAX_SHARDS:
        raise ModelError(f"{index} names {len(names)} files, more than {_MAX_SHARDS}", hint=_AGAIN)
    files = []
    for name in names:
        path = file_in(folder, name)
        if path is None:
            raise ModelError(f"{name} is missing from {folder}", hint="finish the download, then try again")
        files.append(path)
    return files


def _shard_name(name: object, index: str, suffix: str) -> str:
    """A plain file name and nothing else: an index must not lead out of its folder."""
    plain = (
        isinstance(name, str)
        and name.endswith(suffix)
        and not name.startswith((".", "~"))
        and name.isprintable()
        and len(name) <= 255
        and not set(name) & set("/\\:")
    )
    if not plain:
        shown = ascii(name)[:60] if isinstance(name, str) else type(name).__name__
        raise ModelError(f"{index} names a file that is no plain {suffix[1:]} name: {shown}", hint=_AGAIN)
    return str(name)


def read_weights(files: Sequence[Path]) -> dict[str, mx.array]:
    """All tensors of checked files, lazily loaded; float64 as float32. Raises ModelError for broken files, doubled
    names and dtypes of 8-bit floats."""
    weights: dict[str, mx.array] = {}
    for path in files:
        loaded = _read_file(path)
        doubled = weights.keys() & loaded.keys()
        if doubled:
            raise ModelError(f"{path.name} repeats the tensor {min(doubled)}", hint=_AGAIN)
        weights.update(loaded)
    return weights


def _read_file(path: Path) -> dict[str, mx.array]:
    try:
        header = check_safetensors(path, max_header=_MAX_HEADER_BYTES)
    except SafetensorsError as error:
        raise ModelError(f"{path.name}: {error}", hint=_AGAIN) from error
    dtypes = {name: entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
    for name, dtype in dtypes.items():
        if dtype.startswith("F8_"):
            raise ModelError(
                f"{path.name}: tensor {name[:80]} holds 8-bit floats ({dtype}), which are not read",
                hint="use the publisher's 16-bit checkpoint; convert -q makes it small",
            )
    if "F64" in dtypes.values():
        return _read_with_float64(path, header)
    loaded = mx.load(str(path))
    if not isinstance(loaded, dict):
        raise ModelError(f"{path.name} is not a table of tensors", hint=_AGAIN)
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
        raise ModelError(_listed("the weights lack", missing), hint=_AGAIN)
    unknown = sorted(weights.keys() - expected.keys())
    if unknown:
        raise ModelError(_listed("the weights hold unknown tensors:", unknown), hint="is config.json this model's?")
    for name, array in weights.items():
        if not _same_kind(array.dtype, expected[name].dtype):
            kind = str(array.dtype).removeprefix("mlx.core.")
            raise ModelError(
                f"tensor {name} holds {kind}, not weights of this model", hint="is config.json this model's?"
            )
        if array.shape != expected[name].shape:
            raise ModelError(
                f"tensor {name} has shape {array.shape}, the config says {expected[name].shape}",
                hint="is config.json this model's?",
            )


def _same_kind(dtype: mx.Dtype, expected: mx.Dtype) -> bool:
    """Floats of any size for floats; packed weights and exponents exactly as they are."""
    return dtype == expected or (mx.issubdtype(dtype, mx.floating) and mx.issubdtype(expected, mx.floating))


def _listed(what: str, names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{what} {', '.join(ascii(name)[1:-1][:80] for name in names[:3])}{more}"
