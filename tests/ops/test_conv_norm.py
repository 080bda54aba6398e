"""The convolution and the norms, in both implementations."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.ops import conv, norm
from longmamba_mlx.ops import oracle as oracles
from tests.ops.test_scans import NUMPY, relative_error

rng = np.random.default_rng(3)


def draw(*shape: int) -> mx.array:
    return mx.array(rng.standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("module", [conv, NUMPY], ids=["mlx", "numpy"])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 65])
@pytest.mark.parametrize("taps", [2, 4])
def test_conv_equals_the_oracle(module, length: int, taps: int) -> None:
    x, weight, bias, initial = draw(2, length, 6), draw(6, taps), draw(6), draw(2, taps - 1, 6)
    for arguments in ((x, weight, bias, initial), (x, weight, None, None)):
        y, window = module.causal_conv1d(*arguments)
        expected, expected_window = oracles.causal_conv1d(*arguments)
        assert relative_error(y, expected) < 1e-6
        np.testing.assert_array_equal(np.array(window), expected_window.astype(np.float32))


@pytest.mark.parametrize("module", [conv, NUMPY], ids=["mlx", "numpy"])
def test_conv_carries_its_window(module) -> None:
    x, weight, bias = draw(1, 10, 6), draw(6, 4), draw(6)
    whole, last = module.causal_conv1d(x, weight, bias)
    window, parts = None, []
    for start, stop in ((0, 1), (1, 2), (2, 9), (9, 10)):
        y, window = module.causal_conv1d(x[:, start:stop], weight, bias, window)
        parts.append(y)
    assert np.allclose(np.array(mx.concatenate(parts, axis=1)), np.array(whole), atol=1e-6)
    np.testing.assert_array_equal(np.array(window), np.array(last))


@pytest.mark.parametrize("module", [conv, NUMPY], ids=["mlx", "numpy"])
def test_conv_keeps_the_dtype(module) -> None:
    x = draw(1, 9, 6).astype(mx.bfloat16)
    y, window = module.causal_conv1d(x, draw(6, 4), draw(6))
    assert y.dtype == window.dtype == mx.bfloat16


@pytest.mark.parametrize("module", [norm, NUMPY], ids=["mlx", "numpy"])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("norm_before_gate", [False, True])
def test_gated_norm_is_per_group(module, groups: int, norm_before_gate: bool) -> None:
    y, z, weight = draw(2, 5, 16), draw(2, 5, 16), draw(16)
    options = {"groups": groups, "eps": 1e-3, "norm_before_gate": norm_before_gate}
    (expected,) = oracles.gated_rms_norm(y, z, weight, **options)
    got = module.gated_rms_norm(y, z, weight, **options)
    assert relative_error(got, expected) < 1e-6


@pytest.mark.parametrize("module", [norm, NUMPY], ids=["mlx", "numpy"])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize("weighted", [False, True])
def test_dt_b_c_norms_are_three_norms_in_float32(module, dtype: mx.Dtype, weighted: bool) -> None:
    x = draw(2, 5, 17).astype(dtype)
    weights = tuple(draw(size).astype(dtype) for size in (7, 5, 5)) if weighted else None
    got = module.dt_b_c_norms(x, (7, 5, 5), eps=1e-3, weights=weights)
    for part, wanted in zip(got, oracles.dt_b_c_norms(x, (7, 5, 5), 1e-3, weights), strict=True):
        assert part.dtype == mx.float32
        assert relative_error(part, wanted) < 1e-6
