"""Round trips of every dialect, and the promises about the folder that is written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

import longmamba_mlx
from longmamba_mlx.conversion import convert, folder
from longmamba_mlx.errors import ConfigError, DiskError, ModelError
from longmamba_mlx.models.config.parse import parse_config, read_json
from longmamba_mlx.models.loading import load_model
from tests.conversion.checkpoints import TABLES, write_checkpoint
from tests.models.samples import random_ids


def logits(model) -> np.ndarray:
    hidden, _ = model(random_ids(20))
    return np.array(model.head(hidden))


@pytest.mark.parametrize("dialect", TABLES)
@pytest.mark.parametrize("shards", [1, 3])
def test_round_trip(tmp_path: Path, dialect: str, shards: int) -> None:
    model, _ = write_checkpoint(tmp_path / "hf", dialect, shards=shards)
    expected = logits(model)
    assert convert(tmp_path / "hf", tmp_path / "out" / "mlx") == tmp_path / "out" / "mlx"
    loaded = load_model(tmp_path / "out" / "mlx")
    assert np.abs(logits(loaded.model) - expected).max() < 1e-5 * np.abs(expected).max()
    table = read_json(tmp_path / "out" / "mlx" / "config.json")
    source = parse_config(TABLES[dialect][1])
    assert parse_config(table) == source == loaded.config
    assert loaded.name == "mlx" and loaded.quantisation == "none"
    assert loaded.settings == TABLES[dialect][1].get("longmamba", {})
    assert sorted(os.listdir(tmp_path / "out" / "mlx")) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert os.listdir(tmp_path / "out") == ["mlx"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", None])
@pytest.mark.parametrize("dialect", ["transformers-4-falcon", "original-mamba2"])
def test_dtype_leaves_steps_decays_and_norms_alone(tmp_path: Path, dialect: str, dtype: str | None) -> None:
    write_checkpoint(tmp_path / "hf", dialect, dtype=mx.bfloat16)
    convert(tmp_path / "hf", tmp_path / "mlx", dtype)
    for name, array in mx.load(str(tmp_path / "mlx" / "model.safetensors")).items():
        small = name.endswith((".A_log", ".D", "dt_bias", "norm.weight", "norm_f.weight")) or "dt_proj" in name
        expected = "float32" if small else dtype or "bfloat16"
        assert str(array.dtype).endswith("." + expected), name
    assert load_model(tmp_path / "mlx").model is not None


def test_an_untold_head_is_found_in_the_tensors(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "hf", "transformers-5-mamba2")
    path = tmp_path / "hf" / "config.json"
    table = json.loads(path.read_text())
    del table["tie_word_embeddings"]
    path.write_text(json.dumps(table))
    convert(tmp_path / "hf", tmp_path / "untied")
    assert not load_model(tmp_path / "untied").config.tie_embeddings
    weights = tmp_path / "hf" / "model.safetensors"
    tensors = dict(mx.load(str(weights)))
    mx.eval(tensors)
    tensors.pop("lm_head.weight")
    mx.save_safetensors(str(weights), tensors)
    convert(tmp_path / "hf", tmp_path / "tied")
    assert load_model(tmp_path / "tied").config.tie_embeddings
    table["tie_word_embeddings"] = False
    path.write_text(json.dumps(table))
    with pytest.raises(ModelError, match=r"lack lm_head\.weight"):
        convert(tmp_path / "hf", tmp_path / "told")


def test_large_models_are_written_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "SHARD_BYTES", 10_000)
    model, _ = write_checkpoint(tmp_path / "hf", "original-mamba2")
    convert(tmp_path / "hf", tmp_path / "mlx")
    shards = sorted((tmp_path / "mlx").glob("model-*.safetensors"))
    assert len(shards) > 2 and shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"
    assert np.allclose(logits(load_model(tmp_path / "mlx").model), logits(model), rtol=1e-4, atol=1e-4)


def test_mlx_lm_reads_the_folder(tmp_path: Path) -> None:
    from mlx_lm.utils import load_model as load_theirs

    model, _ = write_checkpoint(tmp_path / "hf", "transformers-4-mamba")
    convert(tmp_path / "hf", tmp_path / "mlx")
    theirs, _ = load_theirs(tmp_path / "mlx")
    assert np.allclose(np.array(theirs(random_ids(20))), logits(model), rtol=1e-3, atol=1e-3)


def test_the_function_is_public_and_the_packages_own(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "hf", "transformers-4-mamba")
    longmamba_mlx.convert(tmp_path / "hf", tmp_path / "a")
    longmamba_mlx.conversion.convert(tmp_path / "hf", tmp_path / "b")
    assert (tmp_path / "a" / "config.json").read_text() == (tmp_path / "b" / "config.json").read_text()


def test_an_occupied_folder_is_left_alone(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "hf", "transformers-4-mamba")
    (tmp_path / "mlx").mkdir()
    convert(tmp_path / "hf", tmp_path / "mlx")  # empty: fine
    before = (tmp_path / "mlx" / "model.safetensors").read_bytes()
    with pytest.raises(ModelError, match="exists already") as caught:
        convert(tmp_path / "hf", tmp_path / "mlx")
    assert caught.value.hint
    assert (tmp_path / "mlx" / "model.safetensors").read_bytes() == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ModelError, match="exists already"):
        convert(tmp_path / "hf", tmp_path / "file")


def test_a_failed_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path / "hf", "transformers-4-mamba")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "write_tensors", full)
    with pytest.raises(DiskError, match="No space"):
        convert(tmp_path / "hf", tmp_path / "mlx")
    assert sorted(os.listdir(tmp_path)) == ["hf"]


def test_broken_sources_are_one_line_with_a_hint(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    write_checkpoint(folder, "transformers-4-mamba")
    weights = (folder / "model.safetensors").read_bytes()

    def fails(match: str, kind: type[ModelError] = ModelError) -> None:
        with pytest.raises(kind, match=match) as caught:
            convert(folder, tmp_path / "mlx")
        assert "\n" not in str(caught.value) and caught.value.hint
        assert not (tmp_path / "mlx").exists()

    (folder / "model.safetensors").write_bytes(weights[:-10])
    fails(r"model\.safetensors: ")
    (folder / "model.safetensors").unlink()
    fails("No weights")
    (folder / "pytorch_model.bin").write_bytes(b"\x80")
    fails("pytorch_model.bin")
    (folder / "model.safetensors").write_bytes(weights)
    table = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(table | {"num_hidden_layers": 2}))
    fails("unknown tensors")
    (folder / "config.json").write_text(json.dumps(table | {"num_hidden_layers": 4}))
    fails("weights lack")
    (folder / "config.json").write_text(json.dumps(table | {"state_size": 6}))
    fails("has shape")
    (folder / "config.json").write_text(json.dumps(table | {"num_hidden_layers": 10**9}))
    fails("num_hidden_layers", ConfigError)
    (folder / "config.json").write_text(json.dumps(table | {"longmamba": {"theta": float("inf")}}))
    fails("longmamba", ConfigError)
    (folder / "config.json").unlink()
    fails(r"No config\.json")


@pytest.mark.parametrize(
    "name",
    ["../model.safetensors", "/etc/model.safetensors", "a/b.safetensors", "..\\m.safetensors",
     "~m.safetensors",
     "m\0.safetensors", "model.bin", "", ".safetensors", 3, None, ["m.safetensors"]],
)  # fmt: skip
def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path, name: object) -> None:
    write_checkpoint(tmp_path / "hf", "transformers-4-mamba", shards=2)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": name}}
    (tmp_path / "hf" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="not a plain safetensors name"):
        convert(tmp_path / "hf", tmp_path / "mlx")


def test_missing_and_doubled_shards(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    write_checkpoint(folder, "transformers-4-mamba", shards=2)
    (folder / "model-00002-of-00002.safetensors").write_bytes(
        (folder / "model-00001-of-00002.safetensors").read_bytes()
    )
    with pytest.raises(ModelError, match="repeats the tensor"):
        convert(folder, tmp_path / "mlx")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="is missing") as caught:
        convert(folder, tmp_path / "mlx")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("hf_path", "dtype", "match"),
    [("nowhere/at/all", None, "no folder"), ("nowhere", None, "no folder"), ("x", "int8", "Unknown dtype")],
)
def test_other_mistakes(tmp_path: Path, hf_path: str, dtype: str | None, match: str) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        convert(hf_path, tmp_path / "mlx", dtype)
    assert caught.value.hint
