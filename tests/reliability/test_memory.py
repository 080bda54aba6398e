"""R20: the memory that reading needs is told before, within a tenth, and what cannot be had is refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from longmamba_mlx import ops
from longmamba_mlx.bench.random_checkpoint import Shape, make
from longmamba_mlx.conversion import convert
from longmamba_mlx.documents import Document
from longmamba_mlx.errors import ModelError, UsageError
from longmamba_mlx.models import memory
from longmamba_mlx.models.loading import load_model
from longmamba_mlx.session.api import Model, load
from longmamba_mlx.session.open_document import open_document
from tests.models.hybrids import write_folder

ROOT = Path(__file__).resolve().parents[2]
WITHIN = 0.1
# Libraries, threads and compiled loops are loaded by a small model first: they are no part of what a model needs.
MEASURE = """
    import ctypes, gc, json, sys
    from pathlib import Path
    import numpy as np
    from longmamba_mlx.inference.prefill import prefill
    from longmamba_mlx.models.loading import lazy_model, load_model
    from longmamba_mlx.models.memory import need
    from longmamba_mlx.system import resident_bytes
    first, folder = Path(sys.argv[1]), Path(sys.argv[2])
    tokens, chunk, window = int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]) or None
    ids = np.random.default_rng(0).integers(0, 256, tokens).astype(np.uint32)
    prefill(load_model(first).model, ids[:64], None, chunk=64)
    told = need(lazy_model(folder, window), tokens, chunk).total
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = resident_bytes()
    prefill(load_model(folder, attention_window=window).model, ids, None, chunk=chunk, logits="none")
    # Not getrusage's peak, which begins with what the process that started this one held.
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:"))
    print(json.dumps([told, peak - before]))
"""
GRANITE = {
    "vocab_size": 4096, "hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4,
    "shared_intermediate_size": 1536, "intermediate_size": 1536, "mamba_n_heads": 16, "mamba_d_state": 64,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"] * 2,
}  # fmt: skip
SIZES = {"d_model": 512, "n_layer": 10, "vocab_size": 8000}


def folder_of(name: str, root: Path) -> Path:
    """A model of about 100 MB: a family, and a dtype or "q4"."""
    family, _, form = name.partition(" ")
    if family == "hybrid":
        return write_folder(root / "hybrid", "granite", **GRANITE)
    if family == "experts":
        few = GRANITE | {"hidden_size": 256, "shared_intermediate_size": 512, "intermediate_size": 512,
                         "mamba_n_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2}  # fmt: skip
        return write_folder(root / "experts", "granite-experts", **few)
    source = make(Shape(family, d_state=16 if family == "mamba" else 64, **SIZES), root / f"{family}-source")
    if form == "q4":
        return convert(source, root / "packed", quantize=True)
    return convert(source, root / form, dtype=form)


def check(
    name: str, tokens: int, chunk: int, root: Path, record_property: Callable[[str, object], None], window: int = 0
) -> None:
    family = "mamba" if name.startswith("mamba ") else "mamba2"
    first = convert(make(Shape(family, d_model=512, n_layer=1, vocab_size=300, d_state=16), root / "s"), root / "first")
    words = [str(first), str(folder_of(name, root)), str(tokens), str(chunk), str(window)]
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURE), *words],
        cwd=ROOT, capture_output=True, text=True, timeout=3600, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    told, measured = json.loads(child.stdout)
    case = f"{name}, chunks of {chunk}, window {window or 'none'}"
    record_property(case, f"{told / 1e6:.0f} MB told, {measured / 1e6:.0f} MB measured")
    assert abs(told - measured) <= WITHIN * measured, (told, measured)


measured = pytest.mark.skipif(
    not ops.numpy_backed() or sys.platform != "linux", reason="measures the CPU backend's resident memory, on Linux"
)


@measured
@pytest.mark.parametrize("name", ["mamba2 float32", "hybrid"])
def test_the_estimate_is_what_is_measured(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    check(name, 1024, 512, tmp_path, record_property)


@measured
@pytest.mark.slow
@pytest.mark.timeout(12 * 3600)
@pytest.mark.parametrize(
    ("name", "tokens", "chunk"),
    [
        ("mamba float32", 1024, 512), ("mamba float32", 512, 128), ("mamba float16", 1024, 512),
        ("mamba bfloat16", 2048, 1024), ("mamba q4", 1024, 512), ("mamba2 float32", 512, 128),
        ("mamba2 float32", 2048, 1024), ("mamba2 bfloat16", 1024, 512), ("mamba2 q4", 1024, 512),
        ("hybrid", 2048, 512), ("hybrid", 1024, 256), ("experts", 1024, 512),
    ],
)  # fmt: skip
def test_twelve_estimates(
    name: str, tokens: int, chunk: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    check(name, tokens, chunk, tmp_path, record_property)


@measured
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("tokens", "chunk", "window"), [(2048, 512, 512), (4096, 256, 2048)])
def test_estimates_of_attention_in_a_window(
    tokens: int, chunk: int, window: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    check("hybrid", tokens, chunk, tmp_path, record_property, window)


@pytest.mark.skipif(not ops.numpy_backed(), reason="what MLX keeps of freed arrays on a CPU")
def test_what_is_kept_of_freed_arrays_is_bounded(demo: Model, tmp_path: Path) -> None:
    hybrid = load(str(write_folder(tmp_path / "granite", "granite"))).loaded.model
    few, many, more = (memory.need(hybrid, tokens, 64).kept for tokens in (64, 600, 10**9))
    assert 0 < few < many < more == 32 << 20
    bounded = load(str(tmp_path / "granite"), attention_window=64).loaded.model
    kept = [memory.need(bounded, tokens, 64).kept for tokens in (64, 600, 10**9)]
    assert few == kept[0] < kept[1] == kept[2] < many  # its sizes stay the same
    assert memory.need(demo.loaded.model, 10**9, 64).kept == 0  # its layers run whole in NumPy


def test_keys_and_values_in_a_window_are_counted_and_bounded(tmp_path: Path) -> None:
    folder = str(write_folder(tmp_path / "granite", "granite"))
    whole, bounded = (load(folder, attention_window=window).loaded.model for window in (None, 200))
    short, long, longer = (memory.need(bounded, tokens, 64).keys_and_values for tokens in (64, 600, 10**9))
    assert 0 < short < long == longer < memory.need(whole, 600, 64).keys_and_values


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(memory.VARIABLE, "1MB")
    monkeypatch.setattr("longmamba_mlx.models.loading.make_ready", lambda model: pytest.fail("loaded"))
    with pytest.raises(ModelError, match=r"^demo needs about .* of memory, and 1.0 MB may be used.$") as caught:
        load("demo")
    assert "longmamba-mlx models" in str(caught.value.hint) and memory.VARIABLE in str(caught.value.hint)


def test_a_text_whose_keys_and_values_do_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = load(str(write_folder(tmp_path / "granite", "granite"))), Document("text", "x" * 3000)
    need = memory.need(model.loaded.model, 3000, 64)
    monkeypatch.setenv(memory.VARIABLE, str(need.total - need.keys_and_values // 2))
    told = []
    for read in (lambda: list(open_document(model, text, chunk=64)), lambda: model.read(text, chunk=64)):
        with pytest.raises(ModelError, match=r"^Reading 3,000 tokens with .* needs about") as caught:
            read()
        told.append((str(caught.value), caught.value.hint, caught.value.exit_code))
    assert told[0] == told[1] and "--attention-window" in str(told[0][1])
    bounded = load(str(tmp_path / "granite"), attention_window=64)
    list(open_document(bounded, text, chunk=64))
    assert bounded.read(text, chunk=64).tokens == 3000


def test_logits_that_do_not_fit_are_refused(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    need = memory.need(demo.loaded.model, 1000, 512).total + 2 * 4 * 1000 * demo.loaded.config.vocab_size
    monkeypatch.setenv(memory.VARIABLE, str(need - 1))
    with pytest.raises(ModelError, match=r"^Reading 1,000 tokens with demo needs about"):
        demo.logits([1] * 1000)
    monkeypatch.setenv(memory.VARIABLE, str(need))
    assert demo.logits([1] * 1000).shape == (1000, demo.loaded.config.vocab_size)


@pytest.mark.parametrize("said", ["lots", "-1GB", "nan", "1e30", "\x1b[2J"])
def test_a_wrong_limit_is_told(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(memory.VARIABLE, said)
    with pytest.raises(UsageError, match="Invalid LONGMAMBA_MEMORY") as caught:
        load_model(ROOT / "longmamba_mlx" / "builtin" / "demo")
    assert str(caught.value).isprintable()
