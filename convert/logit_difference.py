"""Compare two sets of logits a part of the vocabulary at a time: all of them would not fit in memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_Numbers = NDArray[np.float32]


class LogitDifference:
    """The difference of `before` and `after` at `positions` places, from parts of the vocabulary in turn.

    Sums of exponentials are kept relative to the largest logit so far, and scaled when a larger one comes.
    """

    def __init__(self, positions: int) -> None:
        self.largest_change = 0.0
        self._sides = (_Side(positions), _Side(positions))
        self._weighted = np.zeros(positions)

    def add(self, before: _Numbers, after: _Numbers) -> None:
        """Take logits (positions, part) float32 of the next part of the vocabulary."""
        change = before - after
        self.largest_change = max(self.largest_change, float(np.abs(change).max()))
        scale, exponentials = self._sides[0].add(before)
        self._weighted = self._weighted * scale + (exponentials * change).sum(axis=1, dtype=np.float64)
        self._sides[1].add(after)

    @property
    def divergence(self) -> float:
        """Mean Kullback-Leibler divergence of after's distributions from before's, nats."""
        before, after = self._sides
        mean_change = self._weighted / before.total
        return float(np.mean(mean_change - before.log_total + after.log_total))

    @property
    def same_next(self) -> float:
        """The share of places with the same likeliest token."""
        return float(np.mean(self._sides[0].best == self._sides[1].best))


class _Side:
    """The log-sum-exp and the argmax of logits that come in parts."""

    def __init__(self, positions: int) -> None:
        self.total = np.zeros(positions)
        self.best = np.zeros(positions, np.int64)
        self._largest = np.full(positions, -np.inf)
        self._seen = 0

    def add(self, logits: _Numbers) -> tuple[NDArray[np.float64], _Numbers]:
        """Take the next part; what earlier sums were scaled by, and exp(logits - largest)."""
        place = logits.argmax(axis=1)
        top = np.take_along_axis(logits, place[:, None], axis=1)[:, 0].astype(np.float64)
        larger = top > self._largest
        self.best = np.where(larger, place + self._seen, self.best)
        largest = np.maximum(self._largest, top)
        scale = np.exp(self._largest - largest)
        exponentials = np.exp(logits - largest[:, None].astype(np.float32))
        self.total = self.total * scale + exponentials.sum(axis=1, dtype=np.float64)
        self._largest = largest
        self._seen += logits.shape[1]
        return scale, exponentials

    @property
    def log_total(self) -> NDArray[np.float64]:
        """log(sum(exp(logits))) of all parts."""
        log: NDArray[np.float64] = np.log(self.total) + self._largest
        return log
