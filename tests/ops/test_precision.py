"""float32 products stay float32 where MLX would round them to TF32."""

from __future__ import annotations

import os
import subprocess
import sys

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from longmamba_mlx.models.families.mamba import MambaMixer
from longmamba_mlx.models.loading import make_ready
from longmamba_mlx.ops import precision
from longmamba_mlx.ops.oracle import as64
from tests.models import samples


def tf32(array: mx.array) -> mx.array:
    """Each number rounded to the 10 bits that TF32 keeps."""
    bits = array.view(mx.uint32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & 0xFFFFE000).view(mx.float32)


def rounded(a: mx.array, b: mx.array) -> mx.array:
    """As an M5 multiplies float32 matrices."""
    return _matmul(tf32(a), tf32(b))


_matmul = mx.matmul


def draw(*shape: int, seed: int) -> mx.array:
    return mx.array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def test_lost_bits_are_noticed() -> None:
    assert precision.loses_bits(rounded) and not precision.loses_bits(mx.matmul)


def test_parts_make_the_whole() -> None:
    """The error of TF32 is 1,000 times that of float32; products in parts have float32's."""
    a, b = draw(40, 160, seed=0), draw(160, 50, seed=1)
    expected = as64(a) @ as64(b)

    def error(result: mx.array) -> float:
        return float(np.abs(as64(result) - expected).max() / np.abs(expected).max())

    assert error(rounded(a, b)) > 1e-5
    assert error(precision.in_parts(a, b, rounded)) < 5e-7


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_on_such_a_device(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = nn.Linear(48, 70, bias=bias), draw(1, 9, 48, seed=2)
    expected = layer(x)
    monkeypatch.setattr(precision, "rounds_float32", lambda: True)
    monkeypatch.setattr(precision.mx, "matmul", rounded)
    assert mx.abs(precision.linear(layer, x) - expected).max().item() < 2e-6


def test_raw_dt_of_a_model_keeps_its_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every product of Mamba-1's dt_proj goes through TF32: raw dt is the same, and would not be without help."""
    monkeypatch.setenv("LONGMAMBA_KERNEL", "reference")
    model = samples.random_model("mamba")
    make_ready(model)
    mixer = next(module for module in model.modules() if isinstance(module, MambaMixer))
    x = draw(1, 9, model.config.d_inner, seed=3)
    expected = mixer._selection(x)[0]
    weight, bias = mixer.dt_proj.weight, mixer.dt_proj.bias

    kind = type(mixer.dt_proj)  # nn.Linear, or what `make_ready` makes of it
    plain = kind.__call__

    def linear(self: nn.Linear, given: mx.array) -> mx.array:
        return rounded(given, self.weight.T) + bias if self.weight is weight else plain(self, given)

    monkeypatch.setattr(kind, "__call__", linear)
    without_help = mx.abs(mixer._selection(x)[0] - expected).max().item()
    monkeypatch.setattr(precision, "rounds_float32", lambda: True)
    monkeypatch.setattr(precision.mx, "matmul", rounded)
    assert mx.abs(mixer._selection(x)[0] - expected).max().item() < 2e-6 < without_help / 10


@pytest.mark.parametrize(("given", "expected"), [(None, "0"), ("1", "1")])
def test_loading_a_model_turns_tf32_off_unless_the_user_wants_it(given: str | None, expected: str) -> None:
    code = (
        "import os; from longmamba_mlx.session.api import load; load('demo'); print(os.environ.get('MLX_ENABLE_TF32'))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "MLX_ENABLE_TF32"}
    environment |= {} if given is None else {"MLX_ENABLE_TF32": given}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == expected


@pytest.mark.metal
@pytest.mark.skipif(not mx.metal.is_available(), reason="this machine has no Metal")
def test_this_machines_products_keep_float32() -> None:
    a, b = draw(512, 160, seed=4), draw(160, 5120, seed=5)
    layer = nn.Linear(160, 5120, bias=False)
    layer.weight = b.T
    expected = as64(a) @ as64(b)
    assert np.abs(as64(precision.linear(layer, a[None])[0]) - expected).max() / np.abs(expected).max() < 1e-6
