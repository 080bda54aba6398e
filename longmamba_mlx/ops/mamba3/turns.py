"""Angles as whole numbers of 2^-32 turns, the same to the bit on every machine.

A token turns by tanh(angle) dt / 2 turns. float32 knows that to 1e-7 turns for a step of 1, and a text adds up what is
missing. So both factors are whole numbers, tanh(angle) of 2^-31 and dt of 2^-32, worked out in 64-bit integers from
tables of cubic pieces, and so is their product; each rounds to the nearest whole number, give or take a tenth.

Functions take `xp`, NumPy or MLX, whose arrays they work on. `mamba3_steps.metal` has the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

_ONE = 1 << 32  # arguments are whole numbers of 2^-32
_STEP = 1 << 25  # between the pieces' middles: 2^-7
_SLOPE_BITS = 30  # derivatives are whole numbers of 2^-30
_MOST = float(1 << 20)  # larger arguments count as this one; sums of two and products stay within 64 bits


@dataclass(frozen=True, slots=True)
class Pieces:
    """A function between -`end` and `end`, in units of 2^-`bits`; constant below, above with the slope `beyond`.

    `taylor` gives the value and the first three coefficients of its Taylor series at float64 points.
    """

    taylor: Callable[[NDArray[np.float64]], tuple[NDArray[np.float64], ...]]
    end: int
    bits: int
    beyond: int

    def values(self, xp: ModuleType, x: Any) -> Any:
        """The function at whole numbers of 2^-32, int64."""
        edge = self.end * _ONE
        inside = xp.clip(x, -edge, edge)
        piece = (inside + _STEP // 2) >> 25
        away = inside - piece * _STEP
        table = _table(self) if xp is np else table_on_device(self)
        row = table[piece + self.end * 128]
        slope = row[..., 1] + (away * (row[..., 2] + ((away * row[..., 3]) >> 32)) >> 32)
        # The value has 8 bits more than the result, so that both are rounded once, here.
        value = (row[..., 0] + (away * slope >> (54 - self.bits)) + 128) >> 8
        return value + xp.maximum(x - edge, 0) if self.beyond else value


def _softplus(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    gate = 1 / (1 + np.exp(-x))
    bend = gate * (1 - gate)
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), gate, bend / 2, bend * (1 - 2 * gate) / 6


def _tanh(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    value = np.tanh(x)
    slope = 1 - value**2
    return value, slope, -value * slope, slope * (3 * value**2 - 1) / 3


# At the ends they are 0, the argument, and -1 and 1 to less than half a unit.
SOFTPLUS = Pieces(_softplus, end=32, bits=32, beyond=1)
TANH = Pieces(_tanh, end=12, bits=31, beyond=0)


@lru_cache
def _table(pieces: Pieces) -> NDArray[np.int64]:
    middles = np.arange(-128 * pieces.end, 128 * pieces.end + 1) / 128
    value, *slopes = pieces.taylor(middles)
    columns = [value * 2.0 ** (pieces.bits + 8), *(slope * 2.0**_SLOPE_BITS for slope in slopes)]
    return np.rint(np.stack(columns, axis=1)).astype(np.int64)


@lru_cache
def table_on_device(pieces: Pieces) -> mx.array:
    """Rows of a value and three coefficients, int64, for every 128th from -`end` to `end`."""
    table = mx.array(_table(pieces))
    mx.eval(table)  # so that it belongs to no graph and to no thread
    return table


def whole(xp: ModuleType, x: Any) -> Any:
    """float32 as the nearest whole number of 2^-32, int64."""
    return xp.round(xp.clip(x, -_MOST, _MOST) * float(_ONE)).astype(xp.int64)


def whole_steps(xp: ModuleType, dt: Any, dt_bias: Any | None, keep: Any | None) -> Any:
    """softplus(dt + dt_bias), 0 where filtered, in 2^-32: dt (b, l, h), dt_bias (h,) float32; keep (b, l, h) bool,
    None: all -> (b, l, h) uint64."""
    raw = whole(xp, dt) if dt_bias is None else whole(xp, dt) + whole(xp, dt_bias)  # without rounding the sum
    step = SOFTPLUS.values(xp, raw)
    return (step if keep is None else step * keep).astype(xp.uint64)


def whole_turns(xp: ModuleType, angle: Any) -> Any:
    """tanh(angle) in 2^-31: float32 -> uint64, modulo 2^64."""
    return TANH.values(xp, whole(xp, angle)).astype(xp.uint64)


def turned(xp: ModuleType, turn: Any, step: Any) -> Any:
    """By how much tokens turn, in 2^-32 turns, uint32: `whole_turns` times `whole_steps`, rounded. Whole turns drop out
    of the 64 bits."""
    return ((turn * step + (1 << 31)) >> 32).astype(xp.uint32)


def direction(angle: mx.array) -> tuple[mx.array, mx.array]:
    """cos and sin of 2^-32 turns (uint32), float32: what is left of an eighth of a turn at most is turned into radians,
    which loses nothing to large angles."""
    quarter = (angle + (1 << 29)) >> 30
    rest = (angle - (quarter << 30)).view(mx.int32).astype(mx.float32) * (2 * np.pi / _ONE)
    cos, sin = mx.cos(rest), mx.sin(rest)
    odd, back = (quarter & 1) == 1, quarter >= 2
    cos, sin = mx.where(odd, -sin, cos), mx.where(odd, cos, sin)
    return mx.where(back, -cos, cos), mx.where(back, -sin, sin)
