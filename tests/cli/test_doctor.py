"""`doctor`: the facts of a bug report."""

from __future__ import annotations

import json

import pytest

from longmamba_mlx.cli.doctor import examine
from longmamba_mlx.inference import gpu_memory
from longmamba_mlx.inference.gpu_memory import Limits


@pytest.mark.parametrize(
    ("limits", "wired", "cache"),
    [
        (None, "none without a GPU", "none without a GPU"),
        (Limits(22_906_503_168, 1 << 31), "22.9 GB while a model works", "2.1 GB while a model works"),
    ],
)
def test_the_memory_limits_are_shown(
    limits: Limits | None, wired: str, cache: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_memory, "limits", lambda: limits)
    examine(json=True)
    facts = json.loads(capsys.readouterr().out)
    assert (facts["wired limit"], facts["cache limit"]) == (wired, cache)
    examine(json=False)
    assert f"wired limit  {wired}\n" in capsys.readouterr().out
