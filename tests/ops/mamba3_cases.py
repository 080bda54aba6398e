"""Random inputs for Mamba-3's scan."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs, Mamba3State, Mimo


def mamba3_case(
    batch: int, length: int, *, mimo: bool = False, heads: int = 4, width: int = 6, groups: int = 2, size: int = 8,
    angles: int = 2, rank: int = 3, bias: float = -3.0, seed: int = 0,
) -> Mamba3Inputs:  # fmt: skip
    """All optional arguments given; about half of the steps filtered. `bias`: of the raw step sizes."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> mx.array:
        return mx.array(rng.standard_normal(shape).astype(np.float32))

    rank = rank if mimo else 1
    state = Mamba3State(
        draw(batch, heads, width, size),
        mx.array(rng.integers(0, 2**32, (batch, heads, angles)).astype(np.uint32)),
        draw(batch, heads, rank, size),
        draw(batch, heads, width),
    )
    per_head = (heads, rank, width)
    return Mamba3Inputs(
        x=draw(batch, length, heads, width),
        dt=draw(batch, length, heads),
        A=-mx.exp(draw(batch, length, heads)),
        B=draw(batch, length, rank, groups, size),
        C=draw(batch, length, rank, groups, size),
        trap=draw(batch, length, heads),
        angle=draw(batch, length, angles),
        B_bias=1 + 0.3 * draw(heads, rank, size),
        C_bias=1 + 0.3 * draw(heads, rank, size),
        D=draw(heads),
        z=draw(batch, length, heads, width),
        dt_bias=0.3 * draw(heads) + bias,
        mimo=Mimo(draw(*per_head), draw(*per_head), draw(*per_head)) if mimo else None,
        threshold=0.3 * draw(heads) + bias,
        initial_state=state,
        return_kept=True,
    )
