"""A model that was never measured is measured on the first document, with progress, once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from longmamba_mlx.errors import DiskError
from longmamba_mlx.events import Counted, ReadProgress
from longmamba_mlx.session.api import Model, load
from longmamba_mlx.session.session import Session

MEASURING = "measuring the model, once"


@pytest.fixture
def folder(tmp_path: Path, demo: Model) -> Path:
    """The built-in model without its calibration."""
    target = tmp_path / "model"
    shutil.copytree(demo.loaded.folder, target, ignore=shutil.ignore_patterns("longmamba.safetensors"))
    return target


def test_the_first_reading_measures_the_model_and_later_ones_do_not(folder: Path, tmp_path: Path, story: str) -> None:
    (tmp_path / "story.txt").write_text(story, encoding="utf-8")
    events = list(Session(str(folder)).open([str(tmp_path / "story.txt")]))
    measured = [event for event in events if isinstance(event, ReadProgress) and event.place == MEASURING]
    total = measured[0].total
    assert total % 512 == 0 and [event.done for event in measured][-1] == total
    assert events.index(measured[0]) > [isinstance(event, Counted) for event in events].index(True)
    assert [event.done for event in measured] == sorted(event.done for event in measured)
    (tmp_path / "other.txt").write_text(story[500:], encoding="utf-8")
    again = list(Session(str(folder)).open([str(tmp_path / "other.txt")]))
    assert not [event for event in again if isinstance(event, ReadProgress) and event.place == MEASURING]


def test_what_is_measured_is_what_calibrating_measures(folder: Path, story: str) -> None:
    model = load(str(folder))
    ids = model.tokenizer.encode(story)
    assert model.calibration is None
    plan = model.plan(len(ids), ids)
    assert plan is not None and model.calibration is not None
    assert model.calibration.text_digest == model.measure(ids).text_digest
    assert load(str(folder)).calibration is not None


def test_a_full_disk_is_told(folder: Path, story: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("LONGMAMBA_HOME", str(tmp_path / "file" / "home"))
    model = load(str(folder))
    ids = model.tokenizer.encode(story)
    with pytest.raises(DiskError):
        model.plan(len(ids), ids)
