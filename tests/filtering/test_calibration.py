"""Collecting from a model; the file: round trip and everything it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.errors import CalibrationError, DiskError, NumericError
from longmamba_mlx.filtering import Calibration, build_plan, calibration_windows, collect
from longmamba_mlx.filtering.delta import delta_of
from longmamba_mlx.filtering.plan import require_layers
from longmamba_mlx.storage import checked_safetensors
from tests.filtering.samples import TinyConfig, TinyModel, policy

WINDOWS = np.random.default_rng(0).integers(0, 32, (3, 64)).astype(np.uint32)
ME = {"fingerprint": "f" * 64, "quantisation": "none"}


def calibrated(model_type: str = "mamba2", **options: object) -> Calibration:
    config = TinyConfig(model_type=model_type)
    return collect(TinyModel(config), WINDOWS, clamps=(0.0, 0.1), **ME, **options)  # type: ignore[arg-type]


def raw_by_hand(model: TinyModel, ids: np.ndarray) -> list[np.ndarray]:
    """Every layer's raw step sizes of one window, in one piece: (L, units) each."""
    hidden, found = model.embed(mx.array(ids[None])), []
    for index, state in enumerate(model.initial_state().layers):
        found.append(model.raw(index, np.array(hidden))[0])
        hidden, _ = model.layer(index, hidden, state)
    return found


@pytest.mark.parametrize("model_type", ["mamba2", "mamba"])
@pytest.mark.parametrize("chunk", [512, 7])
def test_collect_equals_a_run_by_hand(model_type: str, chunk: int) -> None:
    model = TinyModel(TinyConfig(model_type=model_type))
    calibration = calibrated(model_type, chunk=chunk)
    assert (calibration.training_length, calibration.windows) == (64, 3)
    for number, window in enumerate(WINDOWS):
        for index, raw in enumerate(raw_by_hand(model, window)):
            layer, delta = calibration.layers[index], delta_of(raw)
            assert layer.budgets[number] == pytest.approx(delta.sum(axis=0), rel=1e-5)
            rates = model.rates[index].astype(np.float64)
            assert np.array_equal(layer.rates, model.rates[index])
            if model_type == "mamba":
                steps = np.log(np.exp(-delta[:, :, None] * rates[None]).mean(axis=2)).sum(axis=0)
                assert layer.step_mean is not None
                assert layer.step_mean[number] == pytest.approx(steps, rel=1e-4, abs=1e-5)
            else:
                assert layer.step_mean is None


def test_knots_hold_the_pooled_windows() -> None:
    calibration, model = calibrated(), TinyModel()
    pooled = np.concatenate([raw_by_hand(model, window)[0] for window in WINDOWS])
    layer, ordered = calibration.layers[0], np.sort(pooled, axis=0)[::-1]
    assert np.allclose(layer.knot_raw, ordered[calibration.ranks - 1], atol=1e-5)
    assert np.allclose(layer.knot_mass, np.cumsum(delta_of(ordered), axis=0)[calibration.ranks - 1], rtol=1e-4)


def test_units_in_blocks_or_together_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    together = calibrated("mamba")
    monkeypatch.setattr("longmamba_mlx.filtering.calibration.collect._BLOCK", 200)
    blocks = calibrated("mamba")
    for one, other in zip(together.layers, blocks.layers, strict=True):
        for name in ("rates", "budgets", "step_mean", "knot_raw", "knot_mass"):
            assert np.array_equal(getattr(one, name), getattr(other, name))
        for table, cut in zip(one.tables, other.tables, strict=True):
            assert np.array_equal(table.mean, cut.mean) and np.array_equal(table.maximum, cut.maximum)
            assert np.array_equal(table.budgets, cut.budgets)


def test_progress_and_the_default_clamp() -> None:
    seen: list[tuple[int, int]] = []
    calibration = collect(TinyModel(), WINDOWS, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 6) for done in range(1, 7)]
    assert [table.clamp for table in calibration.layers[0].tables] == [0.05]
    assert len(calibration.text_digest) == 64


def test_windows_are_spread_and_do_not_overlap() -> None:
    ids = np.arange(1000, dtype=np.uint32)
    windows = calibration_windows(ids, 100, 4)
    assert windows[:, 0].tolist() == [0, 300, 600, 900] and windows.shape == (4, 100)
    assert len(calibration_windows(ids, 300, 16)) == 3
    with pytest.raises(CalibrationError):
        calibration_windows(ids, 1001)


@pytest.mark.parametrize("windows", [np.zeros(64), np.zeros((0, 64)), np.zeros((2, 1))])
def test_windows_that_are_none(windows: np.ndarray) -> None:
    with pytest.raises(CalibrationError):
        collect(TinyModel(), windows.astype(np.uint32))


def test_a_broken_model_is_named_by_its_layer() -> None:
    model = TinyModel()
    model.bias[1, 2] = np.nan
    with pytest.raises(NumericError, match="Layer 1 "):
        collect(model, WINDOWS)


@pytest.mark.parametrize("model_type", ["mamba2", "mamba"])
def test_round_trip(tmp_path: Path, model_type: str) -> None:
    calibration = calibrated(model_type)
    calibration.save(tmp_path / "longmamba.safetensors")
    again = Calibration.load(tmp_path / "longmamba.safetensors", **ME)
    for mode in ("paper", "curve", "document"):
        settings = policy(mode, theta=1e-3, clamp=0.1)
        assert build_plan(again, settings, 1000).digest() == build_plan(calibration, settings, 1000).digest()
    assert again.text_digest == calibration.text_digest and again.time_step_limit == calibration.time_step_limit


def test_a_finite_clip_survives(tmp_path: Path) -> None:
    calibration = replace(calibrated(), time_step_limit=(0.001, 0.1))
    calibration.save(tmp_path / "c.safetensors")
    assert Calibration.load(tmp_path / "c.safetensors", **ME).time_step_limit == (0.001, 0.1)


def refused(path: Path, **origin: str) -> CalibrationError:
    with pytest.raises(CalibrationError) as caught:
        Calibration.load(path, **{**ME, **origin})
    assert caught.value.hint and "\n" not in str(caught.value)
    return caught.value


def test_another_models_calibration_is_refused(tmp_path: Path) -> None:
    calibrated().save(tmp_path / "c.safetensors")
    assert "another model" in str(refused(tmp_path / "c.safetensors", fingerprint="0" * 64))
    assert "q4" in str(refused(tmp_path / "c.safetensors", quantisation="q4"))


def test_missing_broken_and_foreign_files_are_refused(tmp_path: Path) -> None:
    assert "missing" in str(refused(tmp_path / "none.safetensors"))
    path = tmp_path / "c.safetensors"
    calibrated().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path)
    flipped = bytearray(whole)
    flipped[-5] ^= 0x10
    path.write_bytes(bytes(flipped))
    refused(path)
    path.write_bytes(b"not at all a file of this kind")
    refused(path)
    checked_safetensors.save_arrays(path, {"a": np.zeros(3, np.float32)}, {"some": "thing"})
    assert "not a calibration" in str(refused(path))


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    replace(calibrated(), format_version=2).save(tmp_path / "c.safetensors")
    assert "version 2" in str(refused(tmp_path / "c.safetensors"))


def altered(tmp_path: Path, arrays: dict[str, np.ndarray] | None = None, **metadata: str) -> Path:
    """A calibration file whose content was changed and signed again."""
    path = tmp_path / "c.safetensors"
    calibrated().save(path)
    stored, texts = checked_safetensors.load_numpy(path)
    checked_safetensors.save_arrays(path, {**stored, **(arrays or {})}, {**texts, **metadata})
    return path


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("layers.0.rates", np.full((4, 1), np.nan, np.float32)),
        ("layers.0.rates", np.ones((4, 1), np.float64)),
        ("layers.0.budgets", np.ones((3, 5), np.float32)),
        ("layers.0.budgets", np.full((3, 4), -1, np.float32)),
        ("layers.1.knot_mass", np.zeros((2, 4), np.float32)),
        ("layers.1.tables.0.mean", np.full((25, 4), np.nan, np.float32)),
        ("ranks", np.array([1, 5, 3, 192])),
        ("ranks", np.array([], np.int64)),
    ],
)
def test_impossible_content_is_refused(tmp_path: Path, name: str, array: np.ndarray) -> None:
    refused(altered(tmp_path, {name: array}))


@pytest.mark.parametrize("facts", ["{}", "[]", "no json", '{"layers": -1}', '{"layers": true}'])
def test_impossible_facts_are_refused(tmp_path: Path, facts: str) -> None:
    refused(altered(tmp_path, facts=facts))


def test_saving_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(DiskError):
        calibrated().save(tmp_path / "no such folder" / "c.safetensors")


def test_a_calibration_of_other_layers_is_refused() -> None:
    require_layers(calibrated(), 2, 4)
    for wrong in ((3, 4), (2, 5)):
        with pytest.raises(CalibrationError):
            require_layers(calibrated(), *wrong)
