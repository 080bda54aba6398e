"""The arguments and the state of Mamba-3's scan.

Letters: b batch, l tokens, h heads, p head width, g groups, n state size, r rank (1 without MIMO), s angles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import mlx.core as mx


@dataclass(frozen=True, slots=True)
class Mamba3State:
    """The state that Mamba-3's scan carries from token to token.

    ssm (b, h, p, n) float32; angle (b, h, s) uint32, the running angle in 2^-32 turns, which adds up exactly and wraps
    by itself; k (b, h, r, n) and v (b, h, p) float32, the rotated key and the value of the last kept token.
    """

    names: ClassVar[tuple[str, ...]] = ("ssm", "angle", "k", "v")

    ssm: mx.array
    angle: mx.array
    k: mx.array
    v: mx.array

    @classmethod
    def zeros(cls, batch: int, heads: int, width: int, size: int, rank: int, angles: int) -> Mamba3State:
        """The state before the first token."""
        return cls(
            mx.zeros((batch, heads, width, size), dtype=mx.float32),
            mx.zeros((batch, heads, angles), dtype=mx.uint32),
            mx.zeros((batch, heads, rank, size), dtype=mx.float32),
            mx.zeros((batch, heads, width), dtype=mx.float32),
        )

    def arrays(self) -> tuple[mx.array, mx.array, mx.array, mx.array]:
        """The parts in the order of `names`."""
        return self.ssm, self.angle, self.k, self.v


@dataclass(frozen=True, slots=True)
class Mimo:
    """The projections of a MIMO layer, (h, r, p) each: of x and of the gate z to rank r, and of the output back."""

    x: mx.array
    z: mx.array
    out: mx.array


@dataclass(frozen=True, slots=True)
class Mamba3Inputs:
    """The arguments of `ops.mamba3_scan`, which documents them."""

    x: mx.array
    dt: mx.array
    A: mx.array
    B: mx.array
    C: mx.array
    trap: mx.array
    angle: mx.array
    B_bias: mx.array
    C_bias: mx.array
    D: mx.array | None = None
    z: mx.array | None = None
    dt_bias: mx.array | None = None
    mimo: Mimo | None = None
    threshold: mx.array | None = None
    initial_state: Mamba3State | None = None
    return_kept: bool = False
    A_floor: float | None = None

    @property
    def heads(self) -> int:
        """Number of heads."""
        return int(self.x.shape[2])

    @property
    def rank(self) -> int:
        """Keys and queries of a head for each token."""
        return int(self.B.shape[2])

    @property
    def start(self) -> Mamba3State:
        """The state to start from."""
        if self.initial_state is not None:
            return self.initial_state
        batch, _, heads, width = self.x.shape
        return Mamba3State.zeros(batch, heads, width, self.B.shape[4], self.rank, self.angle.shape[2])

    @property
    def neighbours(self) -> bool:
        """Which state dimensions turn together: neighbours (2i, 2i + 1), or with MIMO i and n / 2 + i."""
        return self.mimo is None

    def result(self, y: mx.array, state: Mamba3State, keep: mx.array) -> Mamba3Scan:
        """Build a scan's result; keep (b, l, h) bool is counted on request."""
        return (y, state, keep.astype(mx.int32).sum(axis=-1)) if self.return_kept else (y, state)


Mamba3Scan = tuple[mx.array, Mamba3State] | tuple[mx.array, Mamba3State, mx.array]
"""What Mamba-3's scan returns: y, the state after the last token and, where asked for, kept counts."""
