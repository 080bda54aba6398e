"""Figures: that they are drawn, with the right number of panels, and say what is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from longmamba_mlx.errors import UsageError
from longmamba_mlx.evaluation import plots
from longmamba_mlx.evaluation.report import Row, rows
from longmamba_mlx.evaluation.samples import Cell, Sample

pytestmark = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")


def made(cells: list[Cell], *, likelihood: bool = False) -> list[Row]:
    return rows(
        [
            Sample(cell, name, number, 0, 0.5 + 0.1 * number, nll=1.0, nll_whole=None if name == "last" else 2.0,
                   tokens=700 + 10 * place)
            for place, cell in enumerate(cells) for name in ("off", "last") for number in range(3)
        ],
        likelihood=likelihood,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("cells", "likelihood", "panels"),
    [
        ([Cell("niah", length, depth) for length in (512, 4096) for depth in (0.0, 1.0)], False, 2 + 1),  # + colours
        ([Cell("niah", length) for length in (512, 4096)], False, 1),
        ([Cell("niah", 512)], False, 1),
        ([Cell("ppl", length) for length in (512, 4096)], True, 2),
        ([Cell(task, length) for task in ("vt", "cwe") for length in (512, 4096)], False, 3),
        ([Cell(task, 0, None, group) for task in ("trec", "lcc") for group in ("0-4k", "8k+")], False, 2),
        ([Cell(task, 0) for task in ("trec", "lcc")], False, 1),
    ],
)
def test_every_kind_of_figure(tmp_path: Path, cells: list[Cell], likelihood: bool, panels: int) -> None:
    found = made(cells, likelihood=likelihood)
    figure = plots._figure(found, "title", 512)
    assert sum(axis.axison for axis in figure.axes) == panels
    path = tmp_path / "figure.png"
    plots.draw(found, path, title="title", training_length=512)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_unknown_kinds_of_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.doc"):
        plots.draw(made([Cell("niah", 512)]), tmp_path / "figure.doc", title="", training_length=512)


def test_without_matplotlib_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as error:
        plots.require_matplotlib()
    assert error.value.hint == "pip install 'longmamba-mlx[plots]'"
