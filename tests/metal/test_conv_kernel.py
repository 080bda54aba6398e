"""The convolution kernel, run thread by thread, against the float64 oracle."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.ops import metal
from longmamba_mlx.ops import oracle as oracles
from tests.metal.test_scan_kernel import Y_TOLERANCE, bits, error
from tests.ops.cases import DTYPES

pytestmark = pytest.mark.usefixtures("emulated")


def draw(*shape: int, seed: int = 0) -> mx.array:
    return mx.array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 2, 3, 15, 16, 17, 50])
def test_lengths_and_dtypes(dtype: str, length: int) -> None:
    x, initial = (array.astype(DTYPES[dtype]) for array in (draw(2, length, 9), draw(2, 3, 9, seed=1)))
    weight, bias = draw(9, 4, seed=2), draw(9, seed=3)
    y, window = metal.causal_conv1d(x, weight, bias, initial)
    expected, expected_window = oracles.causal_conv1d(x, weight, bias, initial)
    assert y.dtype == window.dtype == x.dtype
    assert error(y, expected) <= Y_TOLERANCE[dtype]
    np.testing.assert_array_equal(oracles.as64(window), expected_window)


@pytest.mark.parametrize("taps", [1, 2, 3, 4, 18])
def test_taps_and_optional_arguments(taps: int) -> None:
    x, weight = draw(1, 21, 70), draw(70, taps, seed=1)
    y, window = metal.causal_conv1d(x, weight)
    expected, expected_window = oracles.causal_conv1d(x, weight)
    assert error(y, expected) <= 5e-7
    np.testing.assert_array_equal(oracles.as64(window), expected_window)


def test_any_split_in_time_is_bitwise_the_whole() -> None:
    x, weight, bias = draw(2, 40, 5), draw(5, 4, seed=1), draw(5, seed=2)
    whole, last = metal.causal_conv1d(x, weight, bias)
    for split in (1, 2, 15, 16, 17, 39):
        first, window = metal.causal_conv1d(x[:, :split], weight, bias)
        second, window = metal.causal_conv1d(x[:, split:], weight, bias, window)
        assert bits(mx.concatenate([first, second], axis=1)) == bits(whole)
        assert bits(window) == bits(last)


def test_inputs_are_read_in_place() -> None:
    """The left half of a projection, and weights as checkpoints hold them."""
    wide = draw(2, 19, 24)
    weight = draw(4, 12, seed=1).T
    initial = draw(2, 12, 3, seed=2).swapaxes(1, 2)
    for x in (mx.split(wide, 2, axis=-1)[0], wide[:, :, ::2]):
        y, window = metal.causal_conv1d(x, weight, draw(24, seed=3)[::2], initial)
        expected, expected_window = oracles.causal_conv1d(x, weight, draw(24, seed=3)[::2], initial)
        assert error(y, expected) <= 5e-7
        np.testing.assert_array_equal(oracles.as64(window), expected_window)


def test_a_wider_window_is_rounded_first() -> None:
    """A float32 window before bfloat16 tokens is taken as bfloat16, as in the plain convolution."""
    x, initial = draw(1, 2, 6).astype(mx.bfloat16), draw(1, 3, 6, seed=1)
    weight = draw(6, 4, seed=2)
    wide = metal.causal_conv1d(x, weight, None, initial)
    rounded = metal.causal_conv1d(x, weight, None, initial.astype(mx.bfloat16))
    assert [bits(array) for array in wide] == [bits(array) for array in rounded]
