"""A conversion killed at any moment leaves nothing under the final name; the next one sweeps and finishes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from longmamba_mlx.models.loading import load_model
from tests.conversion.checkpoints import write_checkpoint

ROOT = Path(__file__).resolve().parents[2]
# Every step of the conversion is announced, so that the parent can kill between any two of them.
CHILD = """
import sys
from longmamba_mlx.conversion import checkpoint, convert, folder
def slow(module, name):
    real = getattr(module, name)
    def step(*args, **options):
        print(name, flush=True); sys.stdin.readline()
        result = real(*args, **options)
        print(name, "done", flush=True); sys.stdin.readline()
        return result
    setattr(module, name, step)
slow(checkpoint, "write_tokenizer"); slow(checkpoint, "tensor_files"); slow(checkpoint, "write_text")
slow(checkpoint, "write_weights"); slow(folder, "write_tensors"); slow(folder.os, "replace")
convert(sys.argv[1], sys.argv[2])
print("end", flush=True)
"""


def child(source: Path, target: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(source), str(target)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def run_until(process: subprocess.Popen[str], steps: int) -> bool:
    """Let so many steps begin or end; whether the conversion got to its end before."""
    assert process.stdout and process.stdin
    for _ in range(steps):
        if process.stdout.readline().strip() in ("end", ""):
            return True
        process.stdin.write("\n")
        process.stdin.flush()
    return False


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_killed_between_any_two_steps(tmp_path: Path, sent: signal.Signals) -> None:
    write_checkpoint(tmp_path / "hf", "transformers-4-mamba")
    target = tmp_path / "out" / "mlx"
    seen = 0
    for steps in (1, 4, 7, 9, 12, 14) if sent == signal.SIGKILL else (6,):
        process = child(tmp_path / "hf", target)
        ended = run_until(process, steps)
        process.send_signal(sent)
        process.wait(20)
        if ended or target.exists():
            break
        seen += 1
        assert len(list((tmp_path / "out").rglob(".tmp-*"))) <= 2, "the one before was swept"
    assert seen >= (4 if sent == signal.SIGKILL else 1)
    if not target.exists():
        finish(tmp_path / "hf", target)
    assert sorted(os.listdir(target)) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert os.listdir(tmp_path / "out") == ["mlx"] and load_model(target)


def finish(source: Path, target: Path) -> None:
    command = [sys.executable, "-m", "longmamba_mlx", "convert", "--hf-path", str(source), "--mlx-path", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{target}\n"


@pytest.mark.slow
@pytest.mark.timeout(12 * 3600)
def test_killed_at_random_moments(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "hf", "transformers-4-mamba", shards=3)
    target = tmp_path / "out" / "mlx"
    command = [
        sys.executable,
        "-m",
        "longmamba_mlx",
        "convert",
        "--hf-path",
        str(tmp_path / "hf"),
        "--mlx-path",
        str(target),
    ]
    chance = random.Random(1)
    for _ in range(40):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.2, 1.5))
        process.kill()
        process.wait()
        if target.exists():
            assert load_model(target)
            for path in target.iterdir():
                path.unlink()
            target.rmdir()
    finish(tmp_path / "hf", target)
    assert os.listdir(tmp_path / "out") == ["mlx"]
