"""One sequence of Mamba-3's scan as NumPy holds it, heads first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.ops.cpu.numpy_ops import Array

Wide = NDArray[np.float64]
Unsigned = NDArray[np.uint64]


@dataclass(slots=True)
class Carried:
    """One sequence's state, changed in place: ssm (h, p, n), angle (h, s) uint32, k (h, r, n), v (h, p)."""

    ssm: Array
    angle: NDArray[np.uint32]
    k: Array
    v: Array

    def heads(self, part: slice) -> Carried:
        """That of some heads, on the same memory."""
        return Carried(self.ssm[part], self.angle[part], self.k[part], self.v[part])


@dataclass(frozen=True, slots=True)
class Sequence:
    """One sequence, heads first: step (h, l) and turn (l, s) as in `turns`; keep (h, l) bool, None: all; exponent, own,
    earlier (h, l); x (h, l, p); b_in, c_out (g, l, r, n)."""

    step: Unsigned
    keep: NDArray[np.bool_] | None
    exponent: Wide
    own: Array
    earlier: Array
    turn: Unsigned
    x: Array
    b_in: Array
    c_out: Array

    def part(self, heads: slice, now: slice, groups: NDArray[np.intp]) -> Sequence:
        """Some heads and some tokens of it; `groups`: the group of each of the heads."""
        return Sequence(
            self.step[heads, now],
            None if self.keep is None else self.keep[heads, now],
            self.exponent[heads, now],
            self.own[heads, now],
            self.earlier[heads, now],
            self.turn[now],
            self.x[heads, now],
            self.b_in[groups, now],
            self.c_out[groups, now],
        )


def weights_of_the_next(part: Sequence) -> tuple[Array, Array]:
    """The weight (h, l) with which the next kept token uses each token's key, 0 for filtered ones and where none comes,
    and that (h,) with which the first kept token uses the key before all."""
    later = np.zeros_like(part.own)
    if part.keep is None:
        later[:, :-1] = part.earlier[:, 1:]
        return later, part.earlier[:, 0]
    length = later.shape[1]
    following = np.where(part.keep, np.arange(length), length)
    following = np.minimum.accumulate(following[:, ::-1], axis=1)[:, ::-1]
    padded = np.concatenate([part.earlier, np.zeros_like(later[:, :1])], axis=1)
    upcoming = np.take_along_axis(padded, following, axis=1)
    later[:, :-1] = upcoming[:, 1:]
    later *= part.keep
    return later, upcoming[:, 0]
