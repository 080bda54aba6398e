"""Quantising: which layers, in which format, with which effect; and that a calibration does not outlive it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import longmamba_mlx as lm
from longmamba_mlx.conversion import convert
from longmamba_mlx.conversion.recipe import format_for, recipe_for
from longmamba_mlx.errors import CalibrationError, ConfigError, DiskError, ModelError
from longmamba_mlx.models import FAMILIES
from longmamba_mlx.models.loading import load_model
from longmamba_mlx.models.quantisation import LayerFormat, parse_quantisation
from longmamba_mlx.registry.resolve import resolve
from tests.conversion.test_hub import Heard
from tests.models.samples import ModelConfig


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Heard]:
    """The built-in Mamba-2 model in 4 bit."""
    folder, heard = tmp_path_factory.mktemp("quantised") / "demo-4bit", Heard()
    convert("demo", folder, quantize=True, report=heard)
    return folder, heard


def model_of(family: str, **changes: int) -> nn.Module:
    """An empty model whose widths divide."""
    sizes = {"vocab_size": 64, "d_model": 128, "n_layer": 1, "d_inner": 256, "d_state": 16, "d_conv": 4}
    own = {"dt_rank": 64} if family == "mamba" else {"n_heads": 8, "headdim": 32}
    return FAMILIES[family](ModelConfig(family, **(sizes | own | changes), tie_embeddings=False))


def test_the_recipe_keeps_what_decides_step_sizes() -> None:
    default = LayerFormat(4, 64)
    eight = LayerFormat(8, 64)
    assert dict(recipe_for(model_of("mamba"), default).layers) == {
        "backbone.embeddings": eight, "backbone.layers.0.mixer.x_proj": eight,
        "backbone.layers.0.mixer.dt_proj": eight, "lm_head": eight,
    }  # fmt: skip
    assert dict(recipe_for(model_of("mamba2"), default).layers) == {
        "backbone.embeddings": eight, "backbone.layers.0.mixer.in_proj": eight, "lm_head": eight,
    }  # fmt: skip


@pytest.mark.parametrize(("rank", "form"), [(160, LayerFormat(8, 32)), (96, LayerFormat(8, 32)), (50, None)])
def test_a_rank_that_no_group_divides_stays(rank: int, form: LayerFormat | None) -> None:
    layers = recipe_for(model_of("mamba", dt_rank=rank), LayerFormat(4, 64)).layers
    assert layers["backbone.layers.0.mixer.dt_proj"] == form


def test_eight_bits_need_no_exceptions_and_too_narrow_models_are_refused() -> None:
    assert not recipe_for(model_of("mamba2"), LayerFormat(8, 64)).layers
    with pytest.raises(ModelError, match="Nothing to quantise") as caught:
        recipe_for(model_of("mamba2", d_model=24, d_inner=48, n_heads=2, headdim=24), LayerFormat(4, 64))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("bits", "group", "mode"),
    [(7, 64, "affine"), (1, 64, "affine"), (9, 64, "affine"), (4, 16, "affine"), (4, 48, "affine"), (4, 64, "int4"),
     (8, None, "mxfp4"), (None, 64, "mxfp4")],
)  # fmt: skip
def test_formats_that_do_not_exist(bits: int | None, group: int | None, mode: str) -> None:
    with pytest.raises(ModelError) as caught:
        format_for(bits, group, mode)
    assert caught.value.hint


def test_defaults_are_those_of_mlx_lm() -> None:
    assert format_for(None, None, "affine") == LayerFormat(4, 64)
    assert format_for(None, None, "mxfp4") == LayerFormat(4, 32, "mxfp4")


@pytest.mark.parametrize(
    ("bits", "group", "mode"),
    [
        (2, 128, "affine"),
        (3, 32, "affine"),
        (5, 64, "affine"),
        (6, 64, "affine"),
        (8, 32, "affine"),
        (None, None, "mxfp4"),
    ],
)
def test_every_format_is_written_and_read(tmp_path: Path, bits: int | None, group: int | None, mode: str) -> None:
    convert("demo-mamba1", tmp_path / "q", quantize=True, q_bits=bits, q_group_size=group, q_mode=mode)
    loaded = load_model(tmp_path / "q")
    form = format_for(bits, group, mode)
    assert loaded.quantisation == f"q{form.bits}-g{form.group_size}" + ("-mxfp4" if mode == "mxfp4" else "")
    table = json.loads((tmp_path / "q" / "config.json").read_text())
    assert {key: table["quantization"][key] for key in ("bits", "group_size", "mode")} == form.options
    effect = table["longmamba"]["quantisation_effect"]
    assert effect["windows"] >= 1 and 0 <= effect["divergence"] < 2 and 0.2 < effect["same_next"] <= 1
    weights = mx.load(str(tmp_path / "q" / "model.safetensors"))
    assert all(array.dtype == mx.float32 for name, array in weights.items() if name.endswith(("A_log", "norm.weight")))


def test_the_effect_is_told_and_stored(quantised: tuple[Path, Heard]) -> None:
    folder, heard = quantised
    assert any("instead of" in line and "bits a weight" in line for line in heard.lines)
    assert any("same next token" in line and "kept tokens" in line for line in heard.lines)
    effect = json.loads((folder / "config.json").read_text())["longmamba"]["quantisation_effect"]
    assert effect["same_next"] > 0.85 and effect["decisions_changed"] < 0.05
    assert 0 < effect["kept"] < 1 and abs(effect["kept"] - effect["kept_before"]) < 0.05
    # The model's own settings are still there.
    settings = load_model(folder).settings
    assert settings["clamp"] == load_model(resolve("demo")).settings["clamp"] and "question" in settings


def test_fewer_bits_change_more(tmp_path: Path) -> None:
    changes = []
    for bits in (8, 4, 2):
        convert("demo-mamba1", tmp_path / str(bits), quantize=True, q_bits=bits)
        block = json.loads((tmp_path / str(bits) / "config.json").read_text())["longmamba"]
        changes.append(block["quantisation_effect"]["divergence"])
    assert changes == sorted(changes) and changes[0] < 0.01 < changes[2]


def test_a_quantised_model_answers(quantised: tuple[Path, Heard], story: str, tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text(story)
    book = lm.load(str(quantised[0])).read(tmp_path / "story.txt")
    assert book.ask("What is the access code of Zorvath?").text == "48213"


def test_packed_and_unpacked_weights_give_the_same(
    quantised: tuple[Path, Heard], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = mx.array(np.arange(64)[None])
    got = []
    for kernel in ("auto", "reference"):
        monkeypatch.setenv("LONGMAMBA_KERNEL", kernel)
        model = load_model(quantised[0]).model
        got.append(np.array(model.head(model(ids)[0])))
    assert np.abs(got[0] - got[1]).max() < 1e-3 * np.abs(got[1]).max()


def test_a_calibration_of_other_weights_names_the_command(quantised: tuple[Path, Heard], tmp_path: Path) -> None:
    shutil.copytree(quantised[0], tmp_path / "q")
    assert not (tmp_path / "q" / "longmamba.safetensors").exists(), "it belongs to the weights that were"
    shutil.copy(resolve("demo") / "longmamba.safetensors", tmp_path / "q")
    with pytest.raises(CalibrationError, match="another model's weights") as caught:
        lm.load(str(tmp_path / "q"))
    assert "longmamba-mlx calibrate --model" in str(caught.value.hint)
    (tmp_path / "q" / "longmamba.safetensors").unlink()
    model = lm.load(str(tmp_path / "q"))
    lm.calibrate(model, windows=2)
    assert lm.load(str(tmp_path / "q")).calibration is not None


def test_quantised_checkpoints_are_not_converted_again(quantised: tuple[Path, Heard], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="quantised already") as caught:
        convert(quantised[0], tmp_path / "again")
    assert caught.value.hint and not (tmp_path / "again").exists()


def test_a_failed_measurement_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from longmamba_mlx.conversion import quantising

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(quantising, "measure_effect", broken)
    with pytest.raises(DiskError, match="No space"):
        convert("demo", tmp_path / "q", quantize=True)
    assert not list(tmp_path.iterdir())


def test_large_models_are_written_unmeasured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from longmamba_mlx.conversion import quantising

    heard = Heard()
    monkeypatch.setattr(quantising, "total_bytes", lambda: 1000)
    convert("demo-mamba1", tmp_path / "q", quantize=True, report=heard)
    assert "not measured" in heard.lines[-1] and load_model(tmp_path / "q").quantisation == "q4-g64"


@pytest.mark.parametrize(
    "value",
    [[], "4", {"bits": 4}, {"bits": 0, "group_size": 64}, {"bits": 4, "group_size": 1 << 40}, {"bits": "4"},
     {"bits": 4, "group_size": 64, "mode": 3}, {"bits": 4, "group_size": 64, "mode": "zip"},
     {"bits": 4, "group_size": 64, "a.b": {"bits": -1}}, {"bits": 4, "group_size": 64, "a.b": {"group_size": 63}}],
)  # fmt: skip
def test_hostile_descriptions(value: object) -> None:
    if value == {"bits": 4}:
        assert parse_quantisation({"quantization": value}) is not None
        return
    with pytest.raises((ModelError, ConfigError)) as caught:
        parse_quantisation({"quantization": value})
    assert caught.value.hint and "\n" not in str(caught.value)


def test_packed_weights_that_do_not_fit_their_description(quantised: tuple[Path, Heard], tmp_path: Path) -> None:
    shutil.copytree(quantised[0], tmp_path / "q")
    table = json.loads((tmp_path / "q" / "config.json").read_text())
    for change in (
        {"bits": 3},
        {"group_size": 32},
        {"backbone.embeddings": False},
        {"mode": "mxfp8", "bits": 8, "group_size": 32},
    ):
        text = json.dumps(table | {"quantization": table["quantization"] | change})
        (tmp_path / "q" / "config.json").write_text(text)
        with pytest.raises(ModelError) as caught:
            load_model(tmp_path / "q")
        assert caught.value.hint and "\n" not in str(caught.value)
