"""Sizes of the known Mamba-3 models' scans, as `ops.scan_shapes` has them for Mamba-1 and Mamba-2."""

from __future__ import annotations

from dataclasses import dataclass, replace

import mlx.core as mx

from longmamba_mlx.metal_kernels.mamba3 import layout
from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs, Mamba3State, Mimo


@dataclass(frozen=True, slots=True)
class Mamba3Shape:
    """The scan of a model's layers: `heads` of `rows` with `states` each and `rank` keys a token, of which `angles`
    pairs turn, B and C in `groups`.

    `gated`: the scan itself multiplies with silu(z); elsewhere a norm does. `dtype` is that of all that depends on
    the token.
    """

    heads: int
    rows: int
    states: int
    rank: int
    angles: int
    groups: int = 1
    mimo: bool = False
    gated: bool = True
    dtype: str = "bfloat16"

    def kernels(self) -> tuple[object, ...]:
        """What decides which compiled kernels run, apart from options of a call."""
        plan = layout(self.rows, self.states, self.rank)
        return (self.dtype, self.states, self.rank, self.mimo, self.gated, plan)

    def smallest(self) -> Mamba3Shape:
        """The fewest heads: they all run the same kernels."""
        return replace(self, heads=self.groups)


def random_inputs(shape: Mamba3Shape, length: int, *, batch: int = 1) -> Mamba3Inputs:
    """Arguments of a scan of this shape, all of them given, about half of the tokens filtered."""
    keys = iter(mx.random.split(mx.random.key(length), 32))
    low: mx.Dtype = getattr(mx, shape.dtype)
    heads, rows, states, rank = shape.heads, shape.rows, shape.states, shape.rank

    def draw(*sizes: int, dtype: mx.Dtype = mx.float32) -> mx.array:
        return mx.random.normal(sizes, key=next(keys)).astype(dtype)

    def token(*sizes: int) -> mx.array:
        return draw(batch, length, *sizes, dtype=low)

    return Mamba3Inputs(
        x=token(heads, rows),
        dt=token(heads),
        A=token(heads),
        B=token(rank, shape.groups, states),
        C=token(rank, shape.groups, states),
        trap=token(heads),
        angle=token(shape.angles),
        B_bias=1 + 0.3 * draw(heads, rank, states),
        C_bias=1 + 0.3 * draw(heads, rank, states),
        D=draw(heads),
        z=token(heads, rows) if shape.gated else None,
        dt_bias=mx.full((heads,), -2.0),
        mimo=Mimo(*(draw(heads, rank, rows) for _ in range(3))) if shape.mimo else None,
        threshold=mx.full((heads,), -2.0),
        initial_state=Mamba3State(
            draw(batch, heads, rows, states),
            mx.random.randint(0, 2**31 - 1, (batch, heads, shape.angles), key=next(keys)).astype(mx.uint32) * 2,
            draw(batch, heads, rank, states),
            draw(batch, heads, rows),
        ),
        return_kept=True,
        A_floor=1e-4,
    )


KNOWN: dict[str, Mamba3Shape] = {
    "state-spaces/mamba3-mimo-1.5b": Mamba3Shape(64, 64, 128, rank=4, angles=32, mimo=True),
}
