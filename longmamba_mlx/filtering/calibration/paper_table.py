"""The authors' threshold table, one calibration window at a time (`paper` mode).

For a window of L step sizes per unit, clamped, summing to T: sort descending, stretch to S points by linear
interpolation with half-pixel centres, add up; the first point where the sum exceeds T is the last token kept
and the next value is g(S). Doing that point by point costs the sum of all S per unit. Here the points that
fall between the same two sorted values are summed at once (count and sum of fractions per gap depend on L and
S only), and only the gap where the sum crosses T is walked through: the same result at the cost of L.

Differences from the released code, all at its edges: g = 0 for every S <= L (the code knows 1k and 2k only);
g = 0 where no point, or only the last, crosses T (the code keeps one token, or reads beyond the end); float64
sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.filtering.delta import Float64

THOUSANDS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 30, 36, 44, 54, 64, 80, 96, 120, 144, 168, 192)
"""The lengths of the published table, in thousands of tokens."""

PUBLISHED_LENGTHS = (2000, 4000)
"""Training lengths the published table was used with."""


def paper_lengths(training_length: int) -> tuple[int, ...]:
    """The table's lengths for a training length, ascending.

    For 2000 and 4000 the published list. For any other L each published length keeps its ratio to 2000 (192k
    is 96 training lengths), rounded to whole tokens, so that L = 512 has 256, 512, 768 ... 49152.
    """
    if training_length in PUBLISHED_LENGTHS:
        return tuple(1000 * k for k in THOUSANDS)
    return tuple(sorted({max(1, round(k * training_length / 2)) for k in THOUSANDS}))


def paper_active(training_length: int, total_length: int) -> bool:
    """Whether the released code filters a prompt of this length: int(S/1000) > 2 at L = 2000, S > 5000 at L =
    4000; elsewhere the first of these rules in proportion, S >= 1.5 L."""
    if training_length == 4000:
        return total_length > 5000
    return 2 * total_length >= 3 * training_length


def nearest_length(lengths: tuple[int, ...], total_length: int) -> int:
    """Index of the table entry used for a length: the nearest, ties to the smaller (3500 uses 3k)."""
    return min(range(len(lengths)), key=lambda k: (abs(lengths[k] - total_length), lengths[k]))


def clamp_rank(count: int, clamp: float) -> int:
    """Rank of the step size that larger ones are reduced to: max(1, int(count * clamp))."""
    return max(1, int(count * clamp))


def clamped(delta: Float64, clamp: float) -> Float64:
    """Step sizes (units, L) with the largest ones reduced to the clamp_rank-th largest; unchanged for clamp 0."""
    if clamp <= 0:
        return delta
    place = delta.shape[-1] - clamp_rank(delta.shape[-1], clamp)
    return np.minimum(delta, np.partition(delta, place, axis=-1)[..., place : place + 1])


def table_rows(descending: Float64, budget: Float64, lengths: Sequence[int]) -> tuple[Float64, Float64]:
    """(g, alpha) of one window: threshold and kept share, (lengths, units) each.

    descending (units, L): clamped step sizes, largest first; budget (units,): their sum T; lengths:
    ascending.
    """
    units, window = descending.shape
    slope = np.diff(descending, axis=1, append=descending[:, -1:])
    thresholds, shares = np.zeros((len(lengths), units)), np.ones((len(lengths), units))
    width = window
    for row, length in enumerate(lengths):
        if length <= window:
            continue
        grid = _stretch(window, length)
        gap, kept = _crossing(grid, descending, slope, budget, width)
        # The longer the document, the earlier the budget is filled: what lies behind need not be summed
        # again.
        width = min(window, int(gap.max()) + 2)
        last = np.minimum(kept, length - 1)
        place, every = grid.index[last], np.arange(units)
        dropped = descending[every, place] + grid.fraction[last] * slope[every, place]
        thresholds[row] = np.where(kept < length, dropped, 0.0)
        shares[row] = np.minimum(1.0, kept / length)
    return thresholds, shares


@dataclass(frozen=True, slots=True, eq=False)
class _Stretch:
    """Where S points fall among L sorted values: per point its gap and the fraction in it; per gap the number
    of points, the sum of their fractions and the first of them."""

    index: NDArray[np.intp]
    fraction: Float64
    counts: NDArray[Any]
    fraction_sums: Float64
    first: NDArray[Any]


@lru_cache(maxsize=32)
def _stretch(window: int, length: int) -> _Stretch:
    position = np.clip((np.arange(length) + 0.5) * (window / length) - 0.5, 0, window - 1)
    index = position.astype(np.intp)
    counts = np.bincount(index, minlength=window)
    sums = np.bincount(index, weights=position - index, minlength=window)
    return _Stretch(index, position - index, counts, sums.astype(np.float64), np.cumsum(counts) - counts)


def _crossing(
    grid: _Stretch, descending: Float64, slope: Float64, budget: Float64, width: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(gap, points kept), (units,) each: where the sum of the stretched list first exceeds the budget. All
    points are kept where it never does. Only the first `width` gaps are searched where they suffice."""
    window = descending.shape[1]
    gaps = grid.counts[:width] * descending[:, :width] + grid.fraction_sums[:width] * slope[:, :width]
    sums = np.cumsum(gaps, axis=1)
    crossed = sums > budget[:, None]
    found = crossed[:, -1]
    if not found.all() and width < window:
        return _crossing(grid, descending, slope, budget, window)
    units = np.arange(len(descending))
    gap = np.where(found, crossed.argmax(axis=1), window - 1)
    before = sums[units, gap] - gaps[units, gap]
    steps = np.arange(grid.counts.max())
    points = np.minimum(grid.first[gap][:, None] + steps, len(grid.index) - 1)
    values = descending[units, gap][:, None] + grid.fraction[points] * slope[units, gap][:, None]
    inside = before[:, None] + np.cumsum(values, axis=1) > budget[:, None]
    # Summed in another order than the whole gap: where rounding hides the crossing, it is the last point.
    inside |= steps >= grid.counts[gap][:, None] - 1
    kept = grid.first[gap] + inside.argmax(axis=1) + 1
    return gap, np.where(found, kept, len(grid.index))
