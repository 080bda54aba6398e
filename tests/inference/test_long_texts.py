"""On a CPU a long text is read by compiled loops where numba is installed, whatever the model's width."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from longmamba_mlx.inference.prefill import prefill
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.numpy_blocks import NumpyBlock
from longmamba_mlx.models.numpy_layers import for_length, use_numpy_layers
from longmamba_mlx.ops import backend
from longmamba_mlx.ops.cpu import numba_ops, numpy_ops
from tests.models.samples import random_model

LONG = 300
every_family = pytest.mark.parametrize("name", ["mamba", "mamba2"])


@pytest.fixture(autouse=True)
def long_from_300_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGMAMBA_KERNEL", "cpu")
    monkeypatch.setattr(backend, "_LONG", LONG)


def in_numpy(name: str) -> LanguageModel:
    model = random_model(name)
    use_numpy_layers(model)
    return model


def ops_of(model: LanguageModel) -> set[object]:
    return {layer._ops for layer in model.layers if isinstance(layer, NumpyBlock)}


def ids(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 37, count).astype(np.uint32)


@every_family
def test_the_length_alone_decides(name: str) -> None:
    model = in_numpy(name)
    assert ops_of(for_length(model, LONG - 1)) == {numpy_ops}
    assert ops_of(for_length(model, LONG)) == {numba_ops}
    assert ops_of(model) == {numpy_ops}
    assert ops_of(for_length(for_length(model, LONG), LONG - 1)) == {numpy_ops}


def test_never_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    model = in_numpy("mamba2")
    monkeypatch.setenv("LONGMAMBA_KERNEL", "numpy")
    assert ops_of(for_length(model, LONG)) == {numpy_ops}
    monkeypatch.setenv("LONGMAMBA_KERNEL", "cpu")
    monkeypatch.setattr(backend, "_numba_ops", lambda: "numba is not installed")
    assert ops_of(for_length(model, LONG)) == {numpy_ops}


@every_family
def test_both_read_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = in_numpy(name), ids(LONG)
    used: list[int] = []
    scan = {"mamba": "selective_scan", "mamba2": "ssd_scan"}[name]
    original = getattr(numba_ops, scan)
    monkeypatch.setattr(numba_ops, scan, lambda *given, **named: used.append(1) or original(*given, **named))
    compiled = prefill(model, text, None, chunk=64)
    assert used
    used.clear()
    monkeypatch.setattr(backend, "_LONG", LONG + 1)
    plain = prefill(model, text, None, chunk=64)
    assert not used
    assert compiled.logits is not None and plain.logits is not None
    np.testing.assert_allclose(compiled.logits, plain.logits, rtol=0, atol=1e-5 * np.abs(plain.logits).max())


@every_family
def test_a_reading_resumes_with_every_bit(name: str) -> None:
    model, text = in_numpy(name), ids(LONG)
    whole = prefill(model, text, None, chunk=64)
    states = []
    prefill(model, text, None, chunk=64, on_chunk=lambda state, kept: states.append(state))
    start = type(whole)(states[1], None, None)
    assert start.state.tokens == 128
    resumed = prefill(model, text, None, chunk=64, start=start)
    for one, other in zip(resumed.state.layers, whole.state.layers, strict=True):
        np.testing.assert_array_equal(np.array(one.ssm), np.array(other.ssm))
        np.testing.assert_array_equal(np.array(one.conv), np.array(other.conv))


def test_a_short_text_never_loads_numba() -> None:
    code = (
        "import sys, longmamba_mlx as lm\n"
        "from longmamba_mlx.builtin import sample_document\n"
        "lm.load('demo').read(sample_document())\n"
        "assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
