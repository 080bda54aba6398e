"""What a model folder is, from its config.json and the header of its weights: nothing is loaded, MLX is not needed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longmamba_mlx.errors import ModelError
from longmamba_mlx.models.config.parse import parse_config
from longmamba_mlx.models.weight_files import AGAIN, MAX_HEADER_BYTES, weight_files
from longmamba_mlx.storage.json_config import Reader, read_json
from longmamba_mlx.storage.safetensors_header import SafetensorsError, check_safetensors

_QUANTISATION = "quantization"


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """`family`: the model type; `bits`: of the bulk of the weights; `size`: bytes of the weight files; `is_mlx`: in the
    layout of mlx-lm and this package, to be used as it is."""

    family: str
    bits: int
    size: int
    is_mlx: bool


def folder_facts(folder: Path) -> FolderFacts:
    """Look at a folder. Raises ModelError where it holds no model of a supported family, whole and in safetensors."""
    raw = read_json(folder / "config.json")
    config = parse_config(raw)
    files = weight_files(folder)
    header = _header(files[0])
    quantised = raw.get(_QUANTISATION) is not None
    return FolderFacts(
        family=config.model_type,
        bits=Reader(raw).table(_QUANTISATION).integer("bits", 16, default=4) if quantised else _bits(header),
        size=sum(path.stat().st_size for path in files),
        is_mlx=quantised or _is_mlx(header),
    )


def _header(path: Path) -> dict[str, Any]:
    try:
        return check_safetensors(path, max_header=MAX_HEADER_BYTES)
    except SafetensorsError as error:
        raise ModelError(f"{path.name}: {error}", hint=AGAIN) from error


def _bits(header: dict[str, Any]) -> int:
    """The bits of a number in the largest tensor."""
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    sizes = [(end - start, entry) for entry in entries for start, end in [entry["data_offsets"]] if end > start]
    if not sizes:
        return 0
    size, largest = max(sizes, key=lambda pair: pair[0])
    count: int = math.prod(largest["shape"])
    return 8 * int(size) // count


def _is_mlx(header: dict[str, Any]) -> bool:
    """Whether mlx-lm wrote the file, or one that lays out convolutions as it does: (channels, taps, 1)."""
    if header.get("__metadata__", {}).get("format") == "mlx":
        return True
    shapes = [entry["shape"] for name, entry in header.items() if name.endswith("conv1d.weight")]
    return any(len(shape) == 3 and shape[2] == 1 != shape[1] for shape in shapes)
