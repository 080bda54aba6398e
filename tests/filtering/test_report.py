"""What a calibration report says, against the windows it was made from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from longmamba_mlx.cli import main
from longmamba_mlx.filtering import Calibration, collect
from longmamba_mlx.filtering.calibration.report import calibration_report
from tests.filtering.samples import TinyConfig, TinyModel, policy

WINDOWS = np.random.default_rng(5).integers(0, 512, (8, 200)).astype(np.uint32)
LENGTHS = (200, 400, 800, 3200, 12_800)


@pytest.fixture(scope="module", params=["mamba2", "mamba"])
def calibration(request: pytest.FixtureRequest) -> Calibration:
    config = TinyConfig(model_type=request.param, training_length=200)
    return collect(TinyModel(config), WINDOWS, clamps=(0.1,), knots=10_000)


@pytest.mark.parametrize("mode", ["curve", "document"])
def test_without_a_clamp_the_budget_is_met_at_every_length(calibration: Calibration, mode: str) -> None:
    report = calibration_report(calibration, policy(mode, theta=0.0, clamp=0.0), LENGTHS)
    assert [row.length for row in report.lengths] == list(LENGTHS)
    assert report.lengths[0].kept_tokens == 1.0 and report.lengths[0].kept_mass == 1.0
    for row in report.lengths[1:4]:
        assert row.kept_mass == pytest.approx(1.0, abs=0.1) and row.saturated == 0.0
    shares = [row.kept_tokens for row in report.lengths]
    assert shares == sorted(shares, reverse=True)
    assert all(np.isinf(layer.saturation).all() for layer in report.layers)


@pytest.mark.parametrize("mode", ["paper", "curve"])
def test_a_saturated_clamp_keeps_a_fixed_share(calibration: Calibration, mode: str) -> None:
    report = calibration_report(calibration, policy(mode, theta=0.0, clamp=0.1), LENGTHS)
    last, before = report.lengths[-1], report.lengths[-2]
    assert last.saturated == before.saturated == 1.0
    assert last.kept_tokens == pytest.approx(before.kept_tokens, rel=0.02)
    assert last.kept_mass == pytest.approx(4 * before.kept_mass, rel=0.02) and last.kept_mass_high >= last.kept_mass


def test_layers_are_counted_with_their_budgets(calibration: Calibration) -> None:
    report = calibration_report(calibration, policy("document", theta=0.0), LENGTHS)
    assert [layer.global_share for layer in report.layers] == [1.0, 1.0]
    for layer, known in zip(report.layers, calibration.layers, strict=True):
        np.testing.assert_allclose(layer.budgets, known.budgets.astype(float).mean(axis=0), rtol=1e-6)
    nothing = calibration_report(calibration, policy("off"), LENGTHS)
    assert all(layer.global_units == 0 for layer in nothing.layers)
    assert nothing.lengths[-1].kept_mass == 64.0 and nothing.lengths[-1].kept_tokens == 1.0


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    figure = tmp_path / "c.png"
    with pytest.raises(SystemExit) as end:
        main(["calibrate", "--model", "demo", "--report", "--plot", str(figure)])
    out = capsys.readouterr().out
    assert not end.value.code and "1,048,576" in out and "2,048" in out and figure.stat().st_size > 10_000
    with pytest.raises(SystemExit) as end:
        main(["calibrate", "--model", "demo-mamba1", "--report", "--json", "--filter", "document"])
    data = json.loads(capsys.readouterr().out)
    assert not end.value.code and data["mode"] == "document" and len(data["layers"]) == 3
    assert data["layers"][0]["saturation"][0] is None and len(data["lengths"]) == 10
