"""The two activation functions of a Mamba layer, in plain MLX."""

from __future__ import annotations

import mlx.core as mx


def softplus(x: mx.array) -> mx.array:
    """log(1 + exp(x)), accurate for very negative x (it tends to exp(x)) and exactly 0 at -inf."""
    return mx.logaddexp(x, mx.zeros_like(x))


def silu(x: mx.array) -> mx.array:
    """x * sigmoid(x)."""
    return x * mx.sigmoid(x)
