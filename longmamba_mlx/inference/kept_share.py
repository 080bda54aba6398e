"""Per token, the share of filterable units that kept it: the numbers of the memory map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.tokenization.offsets import ALL_KEPT

Kept = NDArray[np.uint8]
"""For each token the share of filterable units that kept it, 0 to ALL_KEPT."""

MOST_TOKENS = 16 << 20  # a longer document gets no map: it would be larger than any state


class KeptSum:
    """The sum over layers of the kept counts of `length` tokens."""

    def __init__(self, length: int) -> None:
        self._counts = np.zeros(length, np.int64)
        self._units = 0

    def add(self, counts: NDArray[np.int32], thresholds: NDArray[np.float32], at: int = 0) -> None:
        """Add one layer's counts (l,) for the tokens from `at` on, with its thresholds (units,).

        Units with threshold -inf keep every token: the scan counts them, the share leaves them out.
        """
        always = int((thresholds == -np.inf).sum())
        self._counts[at : at + len(counts)] += counts - always
        if at == 0:
            self._units += len(thresholds) - always

    def share(self) -> Kept:
        """The shares (length,): 0 where no unit kept the token, ALL_KEPT only where all units did."""
        return np.asarray(self._counts * ALL_KEPT // max(self._units, 1), np.uint8)
