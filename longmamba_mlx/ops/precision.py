"""Products of float32 matrices in float32: what decides a threshold must not be rounded to TF32 on the way.

From M5 on MLX multiplies float32 matrices on units that keep 10 of 23 bits of each number, unless MLX_ENABLE_TF32 is 0
when it multiplies for the first time. Vectors keep all bits, so that prefill and decode would compare other numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache

import mlx.core as mx
import mlx.nn as nn

_SWITCH = "MLX_ENABLE_TF32"
Product = Callable[[mx.array, mx.array], mx.array]


def ask_for_float32() -> None:
    """Turn TF32 off, unless the user has set MLX's switch. Has an effect until MLX first multiplies matrices."""
    os.environ.setdefault(_SWITCH, "0")


@lru_cache(maxsize=1)
def rounds_float32() -> bool:
    """Whether products of float32 matrices lose bits on the default device; tried once. Never on a CPU."""
    return mx.default_device().type == mx.DeviceType.gpu and loses_bits(mx.matmul)


def loses_bits(product: Product) -> bool:
    """Whether a product with the identity changes numbers that need all bits of a float32."""
    numbers = mx.full((64, 64), 1 + 2**-20)
    return not bool(mx.array_equal(product(numbers, mx.eye(64)), numbers))


def linear(layer: nn.Module, x: mx.array) -> mx.array:
    """A linear layer of x (b, l, d) float32 with all bits; only unquantised, float32 layers need help."""
    if not isinstance(layer, nn.Linear) or not rounds_float32():  # nn.QuantizedLinear is another class
        y: mx.array = layer(x)
        return y
    y = in_parts(x, layer.weight.T, mx.matmul)
    return y if layer.get("bias") is None else y + layer.bias


def in_parts(a: mx.array, b: mx.array, product: Product) -> mx.array:
    """a b in float32 from products that keep 10 bits of each number: every number is split in three of 8 bits, whose
    products are exact."""
    (a_high, a_middle, a_low), (b_high, b_middle, b_low) = _thirds(a), _thirds(b)
    small = product(a_high, b_low) + product(a_middle, b_middle) + product(a_low, b_high)
    return small + (product(a_high, b_middle) + product(a_middle, b_high)) + product(a_high, b_high)


def _thirds(array: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    high = array.astype(mx.bfloat16).astype(mx.float32)
    middle = (array - high).astype(mx.bfloat16).astype(mx.float32)
    return high, middle, array - high - middle
