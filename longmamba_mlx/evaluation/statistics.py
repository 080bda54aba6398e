"""Standard errors and paired comparisons over documents.

Questions about one document are not independent (one reading decides them all), so every sum here is over documents:
a document's score is the mean over its questions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Scores = Mapping[str, float]
_DRAWS = 10_000  # of the bootstrap
"""Document -> its mean score."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over documents and its standard error; nan for the error of fewer than two."""

    mean: float
    stderr: float
    documents: int


@dataclass(frozen=True, slots=True)
class Gain:
    """How much one filter scores above another on the same documents.

    `low` and `high` bound the middle 95 % of bootstrap means; `probability` is the share of them that lie at or on
    the other side of zero, times two (1 where the two never differ); `documents` were read with both.
    """

    over: str
    difference: float
    low: float
    high: float
    probability: float
    documents: int


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and standard error of independent values. Raises ValueError for none."""
    if not values:
        raise ValueError("no values to average")
    array = np.asarray(values, np.float64)
    spread = float(array.std(ddof=1) / math.sqrt(len(array))) if len(array) > 1 else math.nan
    return Estimate(float(array.mean()), spread, len(array))


def paired_gain(scores: Scores, baseline: Scores, over: str) -> Gain | None:
    """The paired bootstrap of `scores` against `baseline`: documents are drawn with replacement, both filters together.

    None where no document was read with both.
    """
    shared = sorted(scores.keys() & baseline.keys())
    if not shared:
        return None
    differences = np.array([scores[key] - baseline[key] for key in shared])
    rng = np.random.default_rng(0)
    means = np.concatenate(
        [
            differences[rng.integers(0, len(differences), (count, len(differences)))].mean(axis=1)
            for count in _batches(_DRAWS, len(differences))
        ]
    )
    low, high = np.quantile(means, (0.025, 0.975))
    tail = min((means <= 0).mean(), (means >= 0).mean())
    return Gain(
        over, float(differences.mean()), float(low), float(high), float(min(1.0, 2 * tail)), documents=len(shared)
    )


def _batches(draws: int, width: int) -> list[int]:
    size = max(1, 2_000_000 // width)
    return [min(size, draws - start) for start in range(0, draws, size)]
