"""Model folders: what is found, what is refused, and what the fingerprint tells apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from longmamba_mlx import ops
from longmamba_mlx.errors import ModelError
from longmamba_mlx.models.loading import load_model
from longmamba_mlx.models.numpy_blocks import NumpyBlock
from tests.conversion.checkpoints import write_checkpoint
from tests.models.samples import random_ids


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "tiny", "transformers-5-mamba2")
    return tmp_path / "tiny"


def test_transformers_folders_load_as_they_are(folder: Path) -> None:
    loaded = load_model(folder)
    assert loaded.name == "tiny" and loaded.folder == folder and len(loaded.fingerprint) == 64
    numpy_layers = [isinstance(block, NumpyBlock) for block in loaded.model.backbone.layers]
    assert all(numpy_layers) if ops.numpy_backed() else not any(numpy_layers)


def test_plain_mlx_when_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = load_model(folder).model
    monkeypatch.setenv("LONGMAMBA_KERNEL", "reference")
    plain = load_model(folder).model
    assert not isinstance(plain.backbone.layers[0], NumpyBlock)
    ids = random_ids(40)
    a, b = (np.array(model.head(model(ids)[0])) for model in (fast, plain))
    assert np.abs(a - b).max() < 1e-3 * np.abs(b).max()


def test_fingerprint_follows_weights_and_config_only(folder: Path, tmp_path: Path) -> None:
    first = load_model(folder).fingerprint
    shutil.copytree(folder, tmp_path / "copy")
    assert load_model(tmp_path / "copy").fingerprint == first
    (folder / "longmamba.safetensors").write_bytes(b"a calibration, not weights")
    (folder / "tokenizer.json").write_text("{}")
    assert load_model(folder).fingerprint == first
    table = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(table | {"layer_norm_epsilon": 1e-4}))
    assert load_model(folder).fingerprint != first
    (folder / "config.json").write_text(json.dumps(table))
    weights = dict(mx.load(str(folder / "model.safetensors")))
    weights["backbone.norm_f.weight"] = weights["backbone.norm_f.weight"] * 2
    mx.eval(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    assert load_model(folder).fingerprint != first


def test_settings_are_handed_on(folder: Path) -> None:
    assert load_model(folder).settings == {}
    table = json.loads((folder / "config.json").read_text())
    table["longmamba"] = {"theta": 1e-5, "stop": ["\n"]}
    (folder / "config.json").write_text(json.dumps(table))
    assert load_model(folder).settings == {"theta": 1e-5, "stop": ["\n"]}


def test_refusals_have_a_hint(folder: Path, tmp_path: Path) -> None:
    def fails(path: Path, match: str) -> None:
        with pytest.raises(ModelError, match=match) as caught:
            load_model(path)
        assert caught.value.hint and "\n" not in str(caught.value)

    fails(tmp_path / "none", "No model folder")
    fails(tmp_path, r"No config\.json")
    weights = dict(mx.load(str(folder / "model.safetensors")))
    mx.eval(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), weights | {"extra": mx.zeros((1,))})
    fails(folder, "unknown tensors: extra")
    weights.pop("backbone.layers.1.mixer.D")
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    fails(folder, r"lack backbone\.layers\.1\.mixer\.D")
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    fails(folder, r"model\.safetensors: ")
    (folder / "model.safetensors").unlink()
    (folder / "longmamba.safetensors").write_bytes(b"")
    fails(folder, "No weights")


def test_a_shape_that_overflows_is_refused(folder: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [65536] * 4, "data_offsets": [0, 0]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelError, match=r"model\.safetensors: "):
        load_model(folder)


def test_quantised_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders as mlx-lm quantises them: packed weights, and `quantization` in the config."""
    from tests.models import samples

    config = samples.ModelConfig("mamba2", 37, 64, 2, 64, 32, 4, n_heads=4, headdim=16, tie_embeddings=True)
    monkeypatch.setitem(samples.CONFIGS, "wide", config)
    model = samples.random_model("wide")
    ids = random_ids(12)
    expected = np.array(model.head(model(ids)[0]))
    nn.quantize(model, group_size=32, bits=8)
    from longmamba_mlx.conversion.dialects import normalised_config

    tmp_path.joinpath("config.json").write_text(
        json.dumps(normalised_config(config, {}) | {"quantization": {"group_size": 32, "bits": 8}})
    )
    mx.save_safetensors(str(tmp_path / "model.safetensors"), dict(tree_flatten(model.parameters())))
    loaded = load_model(tmp_path)
    assert loaded.quantisation == "q8-g32"
    got = np.array(loaded.model.head(loaded.model(ids)[0]))
    assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max()
