"""Chunkwise prefill: all layers of a chunk, then the next chunk; on a GPU one chunk is dispatched ahead."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.filtering import FilterPlan
from longmamba_mlx.inference import gpu_memory
from longmamba_mlx.inference.filtered import PlannedModel
from longmamba_mlx.inference.kept_share import Kept, KeptSum
from longmamba_mlx.inference.lookahead import one_ahead
from longmamba_mlx.inference.pieces import Ids, read_pieces
from longmamba_mlx.inference.reading import Wanted
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.ops.checks import threshold_array
from longmamba_mlx.ops.fallback import steps_with_fallback
from longmamba_mlx.ops.values import values
from longmamba_mlx.tokenization.offsets import ALL_KEPT


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk that is read: it begins at token `first`, `state` is the one after it. logits (n, vocab) are those of all
    its tokens, of the document's last one, or None; kept (l,) are its kept shares, None where nothing is counted."""

    first: int
    state: ModelState
    logits: NDArray[np.float32] | None
    kept: Kept | None


@dataclass(frozen=True, slots=True)
class _Dispatched:
    """A chunk that is perhaps not computed yet: hidden (1, l, d_model), the state after it, and for each filtered layer
    its index and how many units kept each token, (1, l); None where that is not counted."""

    hidden: mx.array
    state: ModelState
    counts: list[tuple[int, mx.array]] | None


def chunks(
    model: LanguageModel,
    ids: Ids,
    plan: FilterPlan | None,
    size: int,
    state: ModelState,
    *,
    counted: bool = False,
    logits: Wanted = "none",
) -> Iterator[Chunk]:
    """Read the ids that follow `state` in chunks of at most `size`, and yield each when it is computed.

    `counted`: with the kept shares. Where a Metal kernel fails, plain MLX takes over: after the last computed chunk, or
    from `state` again where attention has overwritten its keys and values by then.
    """
    # Attention writes keys and values in place only if nothing else refers to the previous state: no lookahead there.
    overwrites = state.attends
    work = _Work(PlannedModel.of(model, plan), ids, size, counted, logits)

    def begin() -> Generator[Chunk, None, None]:
        nonlocal state
        dispatched = work.dispatched(state)
        for ahead in dispatched if overwrites else one_ahead(dispatched):
            chunk = work.computed(ahead)
            del ahead
            if not overwrites:
                state = chunk.state
            yield chunk
            del chunk
            if overwrites:
                gpu_memory.give_back()  # the keys and values of before, whose size no later chunk needs

    return steps_with_fallback(begin)


class _Work:
    """The arguments of `chunks`, and what is done to one chunk."""

    def __init__(self, planned: PlannedModel, ids: Ids, size: int, counted: bool, logits: Wanted) -> None:
        self._planned, self._ids, self._size = planned, ids, size
        self._counted, self._logits = counted, logits
        plan, units = planned.plan, planned.model.config.units
        self._thresholds: list[NDArray[np.float32] | None] | None = None
        self._rows: list[mx.array | None] | None = None
        if plan is not None and plan.has_thresholds:
            self._thresholds = plan.all_thresholds()
            self._rows = [threshold_array(row, units) for row in self._thresholds]

    def dispatched(self, state: ModelState) -> Iterator[_Dispatched]:
        """Yield the chunks that follow `state`, each dispatched when it is asked for."""
        planned, vocabulary = self._planned, self._planned.model.config.vocab_size
        for piece in read_pieces(self._ids, self._size, planned.plan, vocabulary, state.tokens):
            counts = None
            if not planned.filters(state.tokens):
                hidden, state = planned.model(piece, state)
            elif self._rows is None or not self._counted:
                hidden, state = planned.filtered(piece, state, self._rows)
            else:
                hidden, state, counts = _counted(planned.filtered, piece, state, self._rows)
            state.begin(*(count for _, count in counts or ()))
            yield _Dispatched(hidden, state, counts)

    def computed(self, ahead: _Dispatched) -> Chunk:
        """Wait for a chunk, in one go with what was counted, and compute the wanted logits."""
        hidden, state, model = ahead.hidden, ahead.state, self._planned.model
        state.evaluate(*(count for _, count in ahead.counts or ()))
        scores = None
        if self._logits == "all" or (self._logits == "last" and state.tokens == len(self._ids)):
            scores = values(model.head(hidden if self._logits == "all" else hidden[:, -1:])[0])
        length = hidden.shape[1]
        kept = self._share(length, ahead.counts) if self._counted else None
        return Chunk(state.tokens - length, state, scores, kept)

    def _share(self, length: int, counts: list[tuple[int, mx.array]] | None) -> Kept:
        """The share of filtered units that kept each token of a chunk; without counts, all of them."""
        if counts is None or self._thresholds is None:
            return np.full(length, ALL_KEPT, np.uint8)
        total = KeptSum(length)
        for index, kept in counts:
            threshold = self._thresholds[index]
            if threshold is not None:
                total.add(np.array(kept)[0], threshold)
        return total.share()


def _counted(
    model: LanguageModel, piece: mx.array, state: ModelState, thresholds: list[mx.array | None]
) -> tuple[mx.array, ModelState, list[tuple[int, mx.array]]]:
    """Run all layers over one chunk, as `model(...)` does, and count for each filtered layer the units that kept."""
    hidden, after, counts = model.embed(piece), [], []
    for index, threshold in enumerate(thresholds):
        before = state.layers[index]
        if threshold is None:
            hidden, layer = model.layer(index, hidden, before)
        else:
            hidden, layer, kept = model.layer(index, hidden, before, threshold, return_kept=True)
            counts.append((index, kept))
        after.append(layer)
    return hidden, ModelState(layers=tuple(after), tokens=state.tokens + piece.shape[1]), counts
