"""Raw thresholds: the closed form of the authors' rule (`curve`) and the exact budget of one document
(`document`).

Stretching a sorted list only rescales its quantile function, so the table's g(S) is the value above which lie
the tokens that carry a fraction L/S of the window's whole step-size mass. `MassCurve` keeps that mass as a
function of rank for the pooled calibration windows; no list of lengths and no longest length is needed.

No threshold can separate equal values, and they are common: the step sizes of a Mamba-2 model's first layer
depend on nothing but the token, so all occurrences of a word are one value, give or take the order of a
matrix product's sums. Such a group is kept or dropped as a whole, whichever is nearer to the budget, and
thresholds lie half way to the neighbouring value, so that noise flips nothing. The largest value is always
kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import NumericError
from longmamba_mlx.filtering.calibration.paper_table import clamp_rank
from longmamba_mlx.filtering.decay import log_step_mean
from longmamba_mlx.filtering.delta import DtRange, Float, Float32, Float64, delta_of

_UNIT_BLOCK = 16

NOISE = 4e-6
"""Raw values closer than this (relative to their size, absolute below 1) count as equal."""


@dataclass(frozen=True, slots=True, eq=False)
class MassCurve:
    """The pooled step sizes of one layer's calibration windows, at some ranks (1 = largest).

    ranks (knots,) int, ascending from 1 to the number of pooled tokens; raw (knots, units) float32, the value
    of that rank; mass (knots, units), the sum of Delta up to and including that rank.
    """

    ranks: NDArray[np.int64]
    raw: Float32
    mass: Float

    @property
    def tokens(self) -> int:
        """Tokens pooled."""
        return int(self.ranks[-1])

    def raw_at(self, rank: Float64) -> Float32:
        """Raw value at real ranks (units,), between the knots' values; -inf beyond the last."""
        upper = np.clip(np.searchsorted(self.ranks, rank), 1, max(1, len(self.ranks) - 1))
        if len(self.ranks) == 1:
            return np.where(rank > 1, -np.inf, self.raw[0]).astype(np.float32)
        units = np.arange(self.raw.shape[1])
        low, high = self.ranks[upper - 1], self.ranks[upper]
        share = np.clip((rank - low) / (high - low), 0.0, 1.0)
        start, end = self.raw[upper - 1, units].astype(np.float64), self.raw[upper, units].astype(np.float64)
        return np.where(rank > self.tokens, -np.inf, start + share * (end - start)).astype(np.float32)

    def mass_at(self, rank: float) -> Float64:
        """Mass of the tokens up to a rank, (units,)."""
        return self.sum_at(self.mass, rank)

    def sum_at(self, sums: Float, rank: float) -> Float64:
        """What adds up over the tokens, known at the knots, (knots, units), up to any rank: (units,)."""
        upper = int(np.searchsorted(self.ranks, rank))
        high = sums[upper].astype(np.float64)
        if upper == 0:
            return np.asarray(high * rank)
        low = sums[upper - 1].astype(np.float64)
        return np.asarray(low + (high - low) * (rank - self.ranks[upper - 1]) / np.diff(self.ranks)[upper - 1])

    def rank_of(self, mass: Float64) -> Float64:
        """Real rank (units,) up to which the tokens carry a mass (units,)."""
        units = np.arange(self.raw.shape[1])
        upper = np.minimum((self.mass < mass).sum(axis=0), len(self.ranks) - 1)
        below = np.maximum(upper - 1, 0)
        low_mass = np.where(upper == 0, 0.0, self.mass[below, units].astype(np.float64))
        low_rank = np.where(upper == 0, 0, self.ranks[below])
        width = self.mass[upper, units].astype(np.float64) - low_mass
        share = np.divide(mass - low_mass, width, out=np.ones_like(width), where=width > 0)
        return np.asarray(low_rank + np.clip(share, 0.0, 1.0) * (self.ranks[upper] - low_rank))

    def clamped_top(self, clamp: float, dt_range: DtRange) -> tuple[int, Float64, Float64]:
        """(rank, mass of the tokens up to it once clamped, the same before clamping); zeros without a
        clamp."""
        if clamp <= 0:
            return 0, np.zeros(self.raw.shape[1]), np.zeros(self.raw.shape[1])
        rank = clamp_rank(self.tokens, clamp)
        value = delta_of(self.raw_at(np.full(self.raw.shape[1], float(rank))), dt_range)
        return rank, rank * value, self.mass_at(rank)


def knot_ranks(tokens: int, knots: int) -> NDArray[np.int64]:
    """At most `knots` ranks from 1 to `tokens`, evenly spaced in log rank; all of them where they fit."""
    if tokens <= knots:
        return np.arange(1, tokens + 1)
    return np.unique(np.rint(np.geomspace(1, tokens, knots)).astype(np.int64))


def mass_curve(raw: Float32, ranks: NDArray[np.int64], dt_range: DtRange) -> tuple[Float32, Float64]:
    """Knots of one block of units: raw (units, tokens) -> (raw, mass) at the ranks, (knots, units) each."""
    descending = np.sort(raw, axis=1)[:, ::-1]
    mass = np.cumsum(delta_of(descending, dt_range), axis=1)
    return descending[:, ranks - 1].T, mass[:, ranks - 1].T


def rate_curves(raw: Float32, rates: Float32, ranks: NDArray[np.int64], dt_range: DtRange) -> tuple[Float64, Float64]:
    """Of units whose rate depends on the token, raw and rates |A_t| (units, tokens): the sums of |A_t| and of |A_t|
    Delta_t over the tokens with the largest Delta up to the ranks, (knots, units) each."""
    order = np.argsort(-raw, axis=1, kind="stable")
    descending = np.take_along_axis(rates, order, axis=1).astype(np.float64)
    delta = delta_of(np.take_along_axis(raw, order, axis=1), dt_range)
    sums = np.cumsum(descending, axis=1), np.cumsum(descending * delta, axis=1)
    return sums[0][:, ranks - 1].T, sums[1][:, ranks - 1].T


def curve_thresholds(curve: MassCurve, fraction: float, clamp: float, dt_range: DtRange) -> Float32:
    """Raw thresholds (units,) above which lies `fraction` (L/S) of the mass; -inf for a fraction of 1 or
    more.

    With a clamp the mass is that of the clamped values, and once the clamped tokens alone exceed the fraction
    the threshold stays at the clamp value for every longer document, as the table's does.
    """
    if fraction >= 1:
        return np.full(curve.raw.shape[1], -np.inf, np.float32)
    top, top_clamped, top_mass = curve.clamped_top(clamp, dt_range)
    target = fraction * (top_clamped + curve.mass[-1] - top_mass)
    wanted = np.maximum(target - top_clamped + top_mass, 0.0)
    rank = _whole_groups(curve, curve.rank_of(wanted), wanted, dt_range)
    middle = 0.5 * (curve.raw_at(rank).astype(np.float64) + curve.raw_at(rank + 1.0))
    if top:
        value = curve.raw_at(np.full(len(rank), float(top)))
        saturated = (target <= top_clamped) & (value < curve.raw[0] - _noise(value))
        middle = np.where(saturated, value, middle)
    return np.asarray(middle, np.float32)


def _whole_groups(curve: MassCurve, rank: Float64, wanted: Float64, dt_range: DtRange) -> Float64:
    """Ranks (units,) that fall inside a group of equal values moved to its nearer end by mass, and at least
    1."""
    units = np.arange(len(rank))
    value = curve.raw_at(np.maximum(np.ceil(rank), 1.0))
    first = (curve.raw > value + _noise(value)).sum(axis=0)
    last = (curve.raw >= value - _noise(value)).sum(axis=0) - 1
    in_group = last > first
    first = np.minimum(first, len(curve.ranks) - 1)
    before = curve.mass[first, units] - delta_of(value, dt_range)
    keep = (first == 0) | (curve.mass[last, units] - wanted <= wanted - before)
    ends = np.where(keep, curve.ranks[last], curve.ranks[first] - 1)
    return np.maximum(np.where(in_group, ends, rank), 1.0)


def _noise(value: Float32) -> Float32:
    return np.asarray(NOISE * np.maximum(np.abs(value), 1.0), np.float32)


def saturation_lengths(curve: MassCurve, training_length: int, clamp: float, dt_range: DtRange) -> Float64:
    """The document length (units,) from which a clamped threshold no longer rises; inf without a clamp."""
    _, top_clamped, top_mass = curve.clamped_top(clamp, dt_range)
    total = top_clamped + curve.mass[-1] - top_mass
    with np.errstate(divide="ignore"):
        return np.asarray(training_length * total / top_clamped)


def clamped_window(curve: MassCurve, clamp: float, rates: Float, dt_range: DtRange) -> tuple[Float64, Float64 | None]:
    """Clamped budget and log step-mean decay, pooled, as sums over all pooled tokens: (units,) each.

    The second is summed from the knots with the trapezoidal rule and is None where there is one mode.
    """
    top, top_clamped, top_mass = curve.clamped_top(clamp, dt_range)
    budget = np.asarray(top_clamped + curve.mass[-1] - top_mass)
    if rates.shape[1] == 1:
        return budget, None
    delta = delta_of(curve.raw, dt_range)
    if top:
        delta = np.minimum(delta, top_clamped / top)
    logs = log_step_mean(delta.T[:, :, None], rates)
    width = np.diff(curve.ranks)
    between = (logs[:, :-1] + logs[:, 1:]) / 2 * width + np.diff(logs, axis=1) / 2
    return budget, logs[:, 0] + between.sum(axis=1)


def clamped_decay(curve: MassCurve, clamp: float, rate: Float, decay: Float, dt_range: DtRange) -> Float64:
    """sum |A_t| Delta_t with clamped steps, as a sum over all pooled tokens, (units,); rate, decay: `rate_curves`."""
    top, top_clamped, _ = curve.clamped_top(clamp, dt_range)
    rest = decay[-1].astype(np.float64) - (curve.sum_at(decay, top) if top else 0.0)
    return np.asarray(rest + (top_clamped / top * curve.sum_at(rate, top) if top else 0.0))


def document_thresholds(raw: Float32, units: NDArray[np.intp], budgets: Float, dt_range: DtRange) -> Float32:
    """Exact thresholds of one document for some units.

    raw (S, all units) float32, units (k,) column numbers, budgets (k,) in Delta -> (k,). Memory beyond the
    input is a few columns, whatever S is.
    """
    result = np.empty(len(units), np.float32)
    for start in range(0, len(units), _UNIT_BLOCK):
        columns = np.ascontiguousarray(raw[:, units[start : start + _UNIT_BLOCK]].T)
        for offset, column in enumerate(columns):
            result[start + offset] = document_threshold(column, float(budgets[start + offset]), dt_range)
    return result


def document_threshold(raw: Float32, budget: float, dt_range: DtRange = (0.0, float("inf"))) -> np.float32:
    """The threshold that keeps the largest step sizes of raw (S,) so that their sum is nearest to the budget.

    The kept sum is within half a token (or half a group of equal tokens) of the budget, but at least one
    token is kept; -inf where the whole document stays within the budget. Raises NumericError where raw holds
    NaN or inf.
    """
    count = min(len(raw), 4096)
    while True:
        # Far fewer than S tokens fill a budget: only the top is sorted, more of it where that was not enough.
        top = raw if count == len(raw) else np.partition(raw, len(raw) - count)[len(raw) - count :]
        top = np.sort(top)[::-1]
        mass = np.cumsum(delta_of(top, dt_range))
        if not np.isfinite(mass[-1]):
            raise NumericError("The model's step sizes are not finite.", hint="The weights may be broken.")
        crossing = int(np.searchsorted(mass, budget))
        kept = _kept_count(top, mass, crossing, budget) if crossing < count else count
        if kept < count:
            middle = np.float32(0.5 * (float(top[kept - 1]) + float(top[kept])))
            return np.float32(middle if middle < top[kept - 1] else top[kept])
        if count == len(raw):
            return np.float32(-np.inf)
        count = min(len(raw), 4 * count)


def _kept_count(top: Float32, mass: Float64, crossing: int, budget: float) -> int:
    """How many of the values (descending) to keep when the one at `crossing` is the first to reach the
    budget."""
    value, noise = top[crossing], _noise(top[crossing])
    first = int(np.searchsorted(-top, -(value + noise)))
    after = int(np.searchsorted(-top, -(value - noise), side="right"))
    if first == 0 or mass[after - 1] - budget <= budget - mass[first - 1]:
        return after
    return first
