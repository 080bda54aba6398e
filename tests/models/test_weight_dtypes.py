"""Weights in dtypes that MLX lacks or that are no weights: converted, or refused with the way out."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.conversion import convert
from longmamba_mlx.errors import ModelError
from longmamba_mlx.models.loading import load_model
from tests.conversion.checkpoints import write_checkpoint

SIZES = {
    "F64": 8,
    "F32": 4,
    "BF16": 2,
    "F8_E5M2": 1,
    "F8_E4M3": 1,
    "F8_E8M0": 1,
    "I64": 8,
    "U8": 1,
    "C64": 8,
    "BOOL": 1,
}


def rewritten(folder: Path, dtypes: dict[str, str]) -> dict[str, np.ndarray]:
    """The folder's weights with some in other dtypes ("": all others); their values."""
    path = folder / "model.safetensors"
    arrays = {name: np.array(array.astype(mx.float32)) for name, array in mx.load(str(path)).items()}  # type: ignore[union-attr]
    header, data = {}, b""
    for name, array in arrays.items():
        dtype = dtypes.get(name, dtypes.get("", "F32"))
        if dtype == "F64":
            content = array.astype("<f8").tobytes()
        elif dtype == "F32":
            content = array.tobytes()
        elif dtype == "BF16":
            content = np.array(mx.array(array).astype(mx.bfloat16).view(mx.uint16)).tobytes()
        else:
            content = bytes(array.size * SIZES[dtype])
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return arrays


def logits(folder: Path) -> np.ndarray:
    model = load_model(folder).model
    return np.array(model.head(model(mx.arange(30)[None])[0]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "hf", "transformers-4-mamba")
    return tmp_path / "hf"


@pytest.mark.parametrize("rest", ["F64", "F32", "BF16"])
def test_float64_is_converted(folder: Path, tmp_path: Path, rest: str) -> None:
    before = logits(folder)
    arrays = rewritten(folder, {"backbone.layers.0.mixer.in_proj.weight": "F64", "": rest})
    written = mx.load(str(convert(folder, tmp_path / "mlx") / "model.safetensors"))
    assert isinstance(written, dict) and not any(array.dtype == mx.float64 for array in written.values())
    got = written["backbone.layers.0.mixer.in_proj.weight"]
    assert got.dtype == mx.float32 and np.array_equal(np.array(got), arrays["backbone.layers.0.mixer.in_proj.weight"])
    for place in (folder, tmp_path / "mlx"):
        assert np.abs(logits(place) - before).max() < (0.1 * np.abs(before).max() if rest == "BF16" else 1e-6)


@pytest.mark.parametrize("dtype", ["F8_E5M2", "F8_E4M3", "F8_E8M0"])
def test_8_bit_floats_are_refused_with_the_way_out(folder: Path, tmp_path: Path, dtype: str) -> None:
    rewritten(folder, {"backbone.layers.0.mixer.in_proj.weight": dtype})
    for use in (lambda: load_model(folder), lambda: convert(folder, tmp_path / "mlx")):
        with pytest.raises(ModelError, match=f"8-bit floats .{dtype}.") as caught:
            use()
        assert "16-bit checkpoint" in str(caught.value.hint) and not (tmp_path / "mlx").exists()


@pytest.mark.parametrize("dtype", ["I64", "U8", "C64", "BOOL"])
def test_numbers_that_are_no_weights_are_refused(folder: Path, tmp_path: Path, dtype: str) -> None:
    rewritten(folder, {"backbone.layers.0.mixer.in_proj.weight": dtype})
    for use in (lambda: load_model(folder), lambda: convert(folder, tmp_path / "mlx")):
        with pytest.raises(ModelError, match=r"in_proj\.weight holds") as caught:
            use()
        assert caught.value.hint
