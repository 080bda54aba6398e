"""Conversion and its measurement with one layer in memory: the same numbers as with all of it, and bounded memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from longmamba_mlx.conversion import convert
from longmamba_mlx.conversion.layerwise import LayerByLayer
from longmamba_mlx.conversion.logit_difference import LogitDifference
from longmamba_mlx.conversion.tensor_writer import write_tensors
from longmamba_mlx.models.loading import lazy_model, load_model
from longmamba_mlx.storage.safetensors_header import check_safetensors
from tests.models.hybrids import write_folder

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "name", ["granite-experts", "falcon_h1", "nemotron_h", "jamba", "bamba", "zamba2", "plamo2", "phi4flash"]
)
def test_a_layer_at_a_time_gives_the_same_logits(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "mlx", name)
    ids = mx.array(np.arange(40)[None])
    whole = load_model(folder).model
    expected = np.array(whole.head(whole(ids)[0]))[0]
    model = LayerByLayer(lambda: lazy_model(folder))
    hidden = model.embed(ids)
    for index in range(model.config.n_layer):
        state = model.at(index).initial_state().layers[index]
        hidden, _ = model.layer(index, hidden, state)
    parts = [np.array(part)[0] for part in model.logits(hidden)]
    assert np.abs(np.concatenate(parts, axis=1) - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("bits", [None, 4])
def test_the_head_in_slices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bits: int | None) -> None:
    from longmamba_mlx.conversion import layerwise

    monkeypatch.setattr(layerwise, "_VOCABULARY_SLICE", 100)
    folder = convert("demo", tmp_path / "mlx", quantize=bits is not None, q_bits=bits)
    whole = load_model(folder).model
    hidden = mx.random.normal((1, 7, whole.config.d_model), key=mx.random.key(1))
    parts = [np.array(part)[0] for part in LayerByLayer(lambda: lazy_model(folder)).logits(hidden)]
    assert len(parts) > 3 and {part.shape[1] for part in parts[:-1]} == {100}
    expected = np.array(whole.head(hidden))[0]
    assert np.abs(np.concatenate(parts, axis=1) - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("part", [1, 7, 64, 200])
def test_the_difference_of_logits_is_that_of_the_whole(part: int) -> None:
    rng = np.random.default_rng(part)
    before = rng.normal(0, 6, (30, 200)).astype(np.float32)
    after = before + rng.normal(0, 0.5, before.shape).astype(np.float32)
    difference = LogitDifference(30)
    for start in range(0, 200, part):
        difference.add(before[:, start : start + part], after[:, start : start + part])
    p, q = (x - np.log(np.exp(x.astype(np.float64)).sum(axis=1, keepdims=True)) for x in (before, after))
    assert difference.divergence == pytest.approx(float((np.exp(p) * (p - q)).sum(axis=1).mean()), rel=1e-4)
    assert difference.same_next == float((before.argmax(1) == after.argmax(1)).mean()) < 1
    assert difference.largest_change == pytest.approx(float(np.abs(before - after).max()))


def test_written_tensors_are_read_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    arrays = {
        "a": mx.array(rng.normal(size=(3, 5)).astype(np.float32)),
        "b.half": mx.array(rng.normal(size=(7,)).astype(np.float32)).astype(mx.bfloat16),
        "c": mx.array(rng.normal(size=(2, 3, 4)).astype(np.float16)).swapaxes(0, 2),
        "packed": mx.array(rng.integers(0, 2**32, (4, 4), dtype=np.uint32)),
        "exponents": mx.array(rng.integers(0, 256, (5,), dtype=np.uint8)),
        "none": mx.zeros((0, 3)),
    }
    expected = {name: np.array(array.astype(mx.float32)) for name, array in arrays.items()}
    told: list[int] = []
    remaining = dict(arrays)
    write_tensors(remaining, list(arrays), {"format": "mlx"}, told.append, tmp_path / "x.safetensors")
    assert not remaining and sum(told) == sum(array.nbytes for array in arrays.values())
    header = check_safetensors(tmp_path / "x.safetensors")
    assert header["__metadata__"] == {"format": "mlx"}
    got = mx.load(str(tmp_path / "x.safetensors"))
    assert isinstance(got, dict) and got.keys() == arrays.keys()
    for name, array in arrays.items():
        assert got[name].dtype == array.dtype
        assert np.array_equal(np.array(got[name].astype(mx.float32)), expected[name])


@pytest.mark.long
def test_memory_holds_little_more_than_a_layer(tmp_path: Path) -> None:
    """Many layers of a wide model: its size in bf16 is far more than conversion may take beside an empty process."""
    import json

    from longmamba_mlx.conversion.dialects import normalised_config
    from longmamba_mlx.models import FAMILIES
    from tests.models.samples import ModelConfig

    config = ModelConfig("mamba2", 1024, 1024, 28, 2048, 64, 4, n_heads=32, headdim=64)
    model = FAMILIES["mamba2"](config)
    weights = {name: array.astype(mx.bfloat16) for name, array in tree_flatten(model.parameters())}
    (tmp_path / "hf").mkdir()
    size = sum(array.nbytes for array in weights.values())
    mx.eval(weights)
    mx.save_safetensors(str(tmp_path / "hf" / "model.safetensors"), weights)
    (tmp_path / "hf" / "config.json").write_text(json.dumps(normalised_config(config, {})))
    code = (
        "import resource, sys; from longmamba_mlx.conversion import convert\n"
        "import longmamba_mlx.conversion.quantising\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "convert(sys.argv[1], sys.argv[2], quantize=True)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "hf"), str(tmp_path / "mlx")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    grown = int(done.stdout) * (1 if sys.platform == "darwin" else 1024)
    assert size > 300 << 20 and grown < 0.4 * size, (grown, size)
