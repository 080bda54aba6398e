"""What a prefill takes and returns, for one process and for several ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import NumericError
from longmamba_mlx.filtering import FilterPlan
from longmamba_mlx.ground.steps import Stop
from longmamba_mlx.inference.kept_share import MOST_TOKENS, Kept
from longmamba_mlx.inference.pieces import Ids
from longmamba_mlx.models.state import ModelState

Wanted = Literal["none", "last", "all"]
"""The tokens whose logits are computed."""


@dataclass(frozen=True)
class Reading:
    """The result of a prefill: the state after the last token, the wanted logits, the plan with its thresholds fixed.

    `logits` is (vocab,) for "last", (S, vocab) for "all", float32, None for "none". kept (S,) uint8 is the share of
    filtered units that kept each token (`offsets.ALL_KEPT`: all); None where nothing was filtered, or S > 16 million.
    """

    state: ModelState
    logits: NDArray[np.float32] | None
    plan: FilterPlan | None
    kept: Kept | None = None

    def thresholds(self) -> list[NDArray[np.float32] | None]:
        """The thresholds (units,) of each layer, None for a layer that was not filtered; [] without a filter."""
        return [] if self.plan is None else self.plan.all_thresholds()


@dataclass(frozen=True)
class PrefillOptions:
    """The options of `prefill`, which describes them."""

    chunk: int = 512
    should_stop: Stop | None = None
    start: Reading | None = None
    on_chunk: Callable[[ModelState, Kept | None], object] | None = None
    logits: Wanted = "none"


def check_ids(ids: Ids, chunk: int) -> None:
    """Raises ValueError for what cannot be read."""
    if not len(ids) or np.ndim(ids[:1]) != 1 or chunk < 1:
        raise ValueError(f"ids must be (S,) with S > 0 and chunk > 0, got {len(ids)} ids and {chunk}")


def counts_kept(tokens: int, plan: FilterPlan | None) -> bool:
    """Whether kept shares are counted while `tokens` tokens are read."""
    return plan is not None and plan.has_thresholds and tokens <= MOST_TOKENS


def kept_so_far(tokens: int, plan: FilterPlan | None, start: Reading | None) -> Kept | None:
    """Room for the kept shares of all `tokens`, those of `start` filled in; None where they are not known."""
    if not counts_kept(tokens, plan):
        return None
    kept = np.zeros(tokens, np.uint8)
    if start is not None:
        if start.kept is None:
            return None
        kept[: start.state.tokens] = start.kept
    return kept


def finite(reading: Reading) -> Reading:
    """The same reading. Raises NumericError where its state or its logits are not finite."""
    if not reading.state.is_finite() or (reading.logits is not None and not np.isfinite(reading.logits).all()):
        raise NumericError("The model's state holds NaN or infinity.", hint="The weights may be broken.")
    return reading
