"""Random inputs of the scans, with step sizes from far below to far above the thresholds."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
LENGTHS = (1, 2, 63, 64, 65, 257)


def _draw(rng: np.random.Generator, *shape: int) -> mx.array:
    return mx.array(rng.standard_normal(shape).astype(np.float32))


def selective_case(
    batch: int, length: int, channels: int = 5, states: int = 4, dtype: str = "float32", seed: int = 0
) -> dict:
    """Arguments of `selective_scan`, all optional ones given; about half of the steps filtered."""
    rng = np.random.default_rng(seed)
    low = DTYPES[dtype]
    return {
        "x": _draw(rng, batch, length, channels).astype(low),
        "dt": (2 * _draw(rng, batch, length, channels)).astype(low),
        "A": -mx.exp(_draw(rng, channels, states)),
        "B": _draw(rng, batch, length, states).astype(low),
        "C": _draw(rng, batch, length, states).astype(low),
        "D": _draw(rng, channels),
        "z": _draw(rng, batch, length, channels).astype(low),
        "dt_bias": _draw(rng, channels) - 2,
        "threshold": _draw(rng, channels) - 2,
        "initial_state": _draw(rng, batch, channels, states),
    }


def ssd_case(
    batch: int,
    length: int,
    heads: int = 4,
    width: int = 3,
    groups: int = 2,
    states: int = 4,
    dtype: str = "float32",
    seed: int = 0,
) -> dict:
    """Arguments of `ssd_scan`, all optional ones given; about half of the steps filtered."""
    rng = np.random.default_rng(seed)
    low = DTYPES[dtype]
    return {
        "x": _draw(rng, batch, length, heads, width).astype(low),
        "dt": (2 * _draw(rng, batch, length, heads)).astype(low),
        "A": -mx.exp(_draw(rng, heads)),
        "B": _draw(rng, batch, length, groups, states).astype(low),
        "C": _draw(rng, batch, length, groups, states).astype(low),
        "D": _draw(rng, heads),
        "z": _draw(rng, batch, length, heads, width).astype(low),
        "dt_bias": _draw(rng, heads) - 2,
        "threshold": _draw(rng, heads) - 2,
        "initial_state": _draw(rng, batch, heads, width, states),
    }
