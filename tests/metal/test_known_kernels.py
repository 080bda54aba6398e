"""Kernels by others in the emulator against their own fallbacks, and our kernels inside whole models."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx import ops
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.ops import metal_check
from longmamba_mlx.ops.oracle import as64
from tests.emulator.emulator import Options
from tests.metal.test_scan_kernel import error
from tests.models import hybrids, samples
from tests.parity import cases_mamba3, comparing

pytestmark = pytest.mark.usefixtures("emulated")

DTYPES = (mx.float32, mx.float16, mx.bfloat16)
ONE_ULP = {mx.float32: 1e-6, mx.float16: 1e-3, mx.bfloat16: 8e-3}


def draw(*shape: int, seed: int, dtype: mx.Dtype = mx.float32) -> mx.array:
    return mx.array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("groups", [1, 2])
def test_mlx_lm_ssm_update(dtype: mx.Dtype, groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlx_lm.models import ssm

    # Its kernel reads group h // (heads a group) of batch 0 only where there is one sequence.
    monkeypatch.setattr(ssm, "_ssm_kernel", ssm.make_ssm_kernel())
    heads, width, size = 4, 16, 64
    arguments = {
        "hidden_states": draw(1, 1, heads, width, seed=0, dtype=dtype),
        "A_log": draw(heads, seed=1),
        "B": draw(1, 1, groups, size, seed=2, dtype=dtype),
        "C": draw(1, 1, groups, size, seed=3, dtype=dtype),
        "D": draw(heads, seed=4),
        "dt": draw(1, 1, heads, seed=5, dtype=dtype),
        "dt_bias": draw(heads, seed=6),
        "state": draw(1, heads, width, size, seed=7),
        "time_step_limit": (0.001, 100.0),
    }
    y, state = ssm.ssm_update_kernel(**arguments)
    expected_y, expected_state = ssm.ssm_attn(*(arguments[key] for key in arguments))
    assert error(y, as64(expected_y)) <= ONE_ULP[dtype]
    assert error(state, as64(expected_state)) <= 1e-6


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("vectorized", [False, True])
def test_mlx_lm_gated_delta(dtype: mx.Dtype, masked: bool, vectorized: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlx_lm.models import gated_delta

    name = "_gated_delta_kernel" + ("_vec" if vectorized else "") + ("_masked" if masked else "")
    made = gated_delta._make_gated_delta_kernel(has_mask=masked, vectorized=vectorized)
    monkeypatch.setattr(gated_delta, name, made)
    batch, length, keys, values, size, width = 2, 3, 2, 4, 64, 8
    gate = (batch, length, values, size) if vectorized else (batch, length, values)
    arguments = (
        0.1 * draw(batch, length, keys, size, seed=0, dtype=dtype),
        0.1 * draw(batch, length, keys, size, seed=1, dtype=dtype),
        draw(batch, length, values, width, seed=2, dtype=dtype),
        mx.sigmoid(draw(*gate, seed=3)),
        mx.sigmoid(draw(batch, length, values, seed=4, dtype=dtype)),
        draw(batch, values, width, size, seed=5),
    )
    mask = mx.array([[True, False, True], [True, True, False]]) if masked else None
    y, state = gated_delta.gated_delta_kernel_unpacked(*arguments, mask)
    expected_y, expected_state = gated_delta.gated_delta_ops(*arguments, mask)
    shown = slice(None) if mask is None else np.array(mask)  # where masked, the two differ by design
    assert error(mx.array(as64(y)[shown].astype(np.float32)), as64(expected_y)[shown]) <= ONE_ULP[dtype]
    assert error(state, as64(expected_state)) <= 1e-6


def test_mlx_lm_mamba_with_our_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    """mlx-lm's own Mamba-1, its loop over tokens replaced by one launch: the same logits."""
    from mlx_lm.models import mamba
    from mlx_lm.models.cache import ArraysCache

    mx.random.seed(5)
    sizes = {"hidden_size": 24, "intermediate_size": 48, "state_size": 16, "num_hidden_layers": 2}
    rest = {"conv_kernel": 4, "time_step_rank": 3, "use_bias": False, "use_conv_bias": True, "vocab_size": 50}
    model = mamba.Model(mamba.ModelArgs(model_type="mamba", tie_word_embeddings=True, **sizes, **rest))
    ids = mx.array(np.random.default_rng(0).integers(0, 50, (2, 19)))

    def logits() -> list[mx.array]:
        cache = [ArraysCache(2) for _ in model.layers]
        return [model(ids[:, :12], cache), model(ids[:, 12:18], cache), model(ids[:, 18:], cache)]

    def ours(self: Any, x: mx.array, conv_cache: mx.array | None, state: mx.array | None) -> tuple[mx.array, tuple]:
        x, z = self.in_proj(x).split(2, axis=-1)
        x, window = ops.causal_conv1d(x, self.conv1d.weight[:, :, 0], self.conv1d.bias, conv_cache)
        low, b_in, c_out = mx.split(
            self.x_proj(x), [self.time_step_rank, self.time_step_rank + self.ssm_state_size], -1
        )
        y, state = ops.selective_scan(
            x, self.dt_proj(low), -mx.exp(self.A_log), b_in, c_out, self.D, z, initial_state=state
        )
        return self.out_proj(y), (window, state)

    expected = logits()
    monkeypatch.setenv("LONGMAMBA_KERNEL", "metal")
    monkeypatch.setattr(mamba.MambaBlock, "_process_sequence", ours)
    for got, wanted in zip(logits(), expected, strict=True):
        assert mx.abs(got - wanted).max().item() <= 1e-5


@pytest.mark.parametrize("name", ["mamba-biased", "falcon", "mamba2", "mamba2-groups", "mamba2-before"])
def test_our_models_on_metal(name: str, monkeypatch: pytest.MonkeyPatch, emulated: Options) -> None:
    """Filtered prefill in two parts and two decoded tokens: the logits of the specification, and their launches."""
    model = samples.random_model(name)
    launches, parts = agrees_with_the_specification(model, monkeypatch, emulated)
    kernels = 2 if name.startswith("mamba-") else 3  # Falcon-Mamba: the norms of dt, B and C; Mamba-2: the gated norm
    assert launches == parts * kernels * model.config.n_layer


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("falcon_h1", {}),
        ("falcon_h1", {"mamba_rms_norm": False}),  # no norm: the scan gates
        ("granite", {}),
        ("nemotron_h", {}),
        ("jamba", {}),  # norms of dt, B and C with weights
        ("zamba2", {}),
        ("plamo2", {}),  # norms of B, C and dt; the scan gates
        ("phi4flash", {}),  # and one scan that does not gate
    ],
    ids=str,
)
def test_hybrids_on_metal(
    name: str, changes: dict[str, object], monkeypatch: pytest.MonkeyPatch, emulated: Options
) -> None:
    """Zamba2's random layers make 1e-4 of rounding errors, also between two implementations without kernels."""
    agrees_with_the_specification(hybrids.hybrid(name, **changes), monkeypatch, emulated, tolerance=1e-4)


@pytest.mark.parametrize("name", [case.name for case in cases_mamba3.CASES])
def test_mamba3_on_metal(name: str, monkeypatch: pytest.MonkeyPatch, emulated: Options) -> None:
    """SISO and MIMO, with the scan's own gate and with a norm."""
    model = comparing.model(name, "reference")
    launches, calls = agrees_with_the_specification(model, monkeypatch, emulated, tolerance=5e-5)
    norms = sum("norm" in layer.mixer for layer in model.layers)
    assert launches == (2 * model.config.n_layer + norms) * calls


def agrees_with_the_specification(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, emulated: Options, tolerance: float = 1e-5
) -> tuple[int, int]:
    """Whether logits are those of the specification; how many kernels ran, in how many calls of the model."""
    ids = mx.array(np.random.default_rng(1).integers(0, model.config.vocab_size, (2, 13)))
    thresholds = samples.random_thresholds(model)
    parts = ((slice(0, 7), thresholds), (slice(7, 11), thresholds), (slice(11, 12), None), (slice(12, 13), None))

    def run() -> list[mx.array]:
        state, results = None, []
        for part, filtered in parts:
            hidden, state = model(ids[:, part], state, filtered)
            results.append(model.head(hidden))
        return results

    monkeypatch.setenv("LONGMAMBA_KERNEL", "reference")
    expected = run()
    monkeypatch.setenv("LONGMAMBA_KERNEL", "metal")
    assert metal_check.usable(required=True)
    before = emulated.launches
    for got, wanted in zip(run(), expected, strict=True):
        assert mx.abs(got - wanted).max().item() <= tolerance
    return emulated.launches - before, len(parts)
