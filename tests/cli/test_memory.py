"""Little memory is one clear line before the libraries end the process in their own words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from longmamba_mlx import cli
from longmamba_mlx.builtin import sample_document
from longmamba_mlx.cli import memory

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not limit address space")
@pytest.mark.parametrize("megabytes", [150, 300, 550, 690])
def test_a_limit_that_is_too_low_is_told(megabytes: int) -> None:
    words = [sys.executable, "-m", "longmamba_mlx", "read", "--file", str(sample_document())]
    command = ["bash", "-c", f'ulimit -v {megabytes << 10}; exec "$@"', "bash", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and not done.stdout
    error, hint = done.stderr.splitlines()
    assert error.startswith(f"Error: Not enough memory: this process may use {megabytes} MB") and "ulimit" in hint


def test_memory_that_ends_later_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full() -> None:
        raise MemoryError("Unable to allocate 24.0 MiB")

    monkeypatch.setattr(cli, "require_address_space", full)
    with pytest.raises(SystemExit) as caught:
        cli.main(["models"])
    assert caught.value.code == 1
    assert capsys.readouterr().err.splitlines()[0] == "Error: Not enough memory."
    assert memory.NEEDED_BYTES < 1 << 30
