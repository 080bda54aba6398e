"""The weight files of a model folder: which they are, checked before MLX reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import mlx.core as mx

from longmamba_mlx.config import read_json
from longmamba_mlx.errors import ConfigError, ModelError
from longmamba_mlx.safeio import SafetensorsError, check_safetensors

INDEX = "model.safetensors.index.json"
CALIBRATION = "longmamba.safetensors"

_MAX_INDEX_BYTES = 64 << 20
_MAX_HEADER_BYTES = 16 << 20
_MAX_SHARDS = 1024


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a folder's weights, in a fixed order.

    Those that `model.safetensors.index.json` names where there is one, else `model*.safetensors`, else every
    safetensors file but the calibration. Raises ModelError when there is none, or the index is unusable.
    """
    if (folder / INDEX).is_file():
        return _indexed(folder)
    found = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.safetensors"))
    found = [path for path in found if path.name != CALIBRATION]
    if found:
        return found
    if any(folder.glob("pytorch_model*.bin")):
        raise ModelError(
            f"{folder.name} holds its weights only as pytorch_model.bin, which is not read",
            hint="use a repository or revision with safetensors files",
        )
    raise ModelError(f"no weights (*.safetensors) in {folder}", hint="was the download or conversion finished?")


def _indexed(folder: Path) -> list[Path]:
    try:
        table = read_json(folder / INDEX, max_bytes=_MAX_INDEX_BYTES).get("weight_map")
    except ConfigError as error:
        raise ModelError(str(error)) from error
    if not isinstance(table, dict) or not table:
        raise ModelError(f"{INDEX} holds no weight_map")
    names = sorted({_shard_name(name) for name in table.values()})
    if len(names) > _MAX_SHARDS:
        raise ModelError(f"{INDEX} names {len(names)} files, more than {_MAX_SHARDS}")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{missing[0]} is missing from {folder}", hint="finish the download, then try again")
    return [folder / name for name in names]


def _shard_name(name: object) -> str:
    """A plain file name and nothing else: an index must not lead out of its folder."""
    plain = (
        isinstance(name, str)
        and name.endswith(".safetensors")
        and not name.startswith((".", "~"))
        and name.isprintable()
        and not set(name) & set("/\\:")
    )
    if not plain:
        shown = ascii(name)[:60] if isinstance(name, str) else type(name).__name__
        raise ModelError(f"{INDEX} names a file that is no plain safetensors name: {shown}")
    return str(name)


def read_weights(files: Sequence[Path]) -> dict[str, mx.array]:
    """All tensors of checked files, lazily loaded. Raises ModelError for broken files and doubled names."""
    weights: dict[str, mx.array] = {}
    for path in files:
        try:
            check_safetensors(path, max_header=_MAX_HEADER_BYTES)
        except SafetensorsError as error:
            raise ModelError(f"{path.name}: {error}", hint="download or convert the model again") from error
        loaded = mx.load(str(path))
        if not isinstance(loaded, dict):
            raise ModelError(f"{path.name} is not a table of tensors")
        doubled = weights.keys() & loaded.keys()
        if doubled:
            raise ModelError(f"{path.name} repeats the tensor {min(doubled)}")
        weights.update(loaded)
    return weights


def check_weights(expected: Mapping[str, mx.array], weights: Mapping[str, mx.array]) -> None:
    """Raise ModelError unless the tensors are exactly the expected parameters, in their shapes."""
    missing = sorted(expected.keys() - weights.keys())
    if missing:
        raise ModelError(_listed("the weights lack", missing), hint="download or convert the model again")
    unknown = sorted(weights.keys() - expected.keys())
    if unknown:
        raise ModelError(_listed("the weights hold unknown tensors:", unknown), hint="is config.json this model's?")
    for name, array in weights.items():
        if array.shape != expected[name].shape:
            raise ModelError(
                f"tensor {name} has shape {array.shape}, the config says {expected[name].shape}",
                hint="is config.json this model's?",
            )


def _listed(what: str, names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{what} {', '.join(ascii(name)[1:-1][:80] for name in names[:3])}{more}"
