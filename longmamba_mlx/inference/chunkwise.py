"""Chunkwise prefill: all layers of a chunk, then the next chunk; on a GPU one chunk is dispatched ahead."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Literal

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.filtering import FilterPlan
from longmamba_mlx.inference import gpu_memory
from longmamba_mlx.inference.filtered import PlannedModel
from longmamba_mlx.inference.kept_share import KeptSum
from longmamba_mlx.inference.lookahead import one_ahead
from longmamba_mlx.inference.pieces import Ids, read_pieces
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.ops.checks import threshold_array
from longmamba_mlx.ops.fallback import steps_with_fallback
from longmamba_mlx.ops.values import values
from longmamba_mlx.tokenization.offsets import ALL_KEPT

Wanted = Literal["none", "last", "all"]
Kept = NDArray[np.uint8]
Thresholds = list[NDArray[np.float32] | None]


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
    thresholds: Thresholds | None,
    *,
    counted: bool,
    logits: Wanted,
) -> Iterator[Chunk]:
    """Read the ids that follow `state` in chunks of at most `size`, and yield each when it is computed.

    Where a Metal kernel fails, plain MLX takes over: after the last computed chunk, or from `state` again where
    attention has overwritten its keys and values by then.
    """
    # Attention writes keys and values in place only if nothing else refers to the previous state: no lookahead there.
    overwrites = state.attends

    def begin() -> Generator[Chunk, None, None]:
        nonlocal state
        dispatched = _dispatched(model, ids, plan, size, state, thresholds, counted=counted)
        for ahead in dispatched if overwrites else one_ahead(dispatched):
            chunk = _computed(model, ahead, thresholds, counted, logits, len(ids))
            del ahead
            if not overwrites:
                state = chunk.state
            yield chunk
            del chunk
            if overwrites:
                gpu_memory.give_back()  # the keys and values of before, whose size no later chunk needs

    return steps_with_fallback(begin)


def _dispatched(
    model: LanguageModel,
    ids: Ids,
    plan: FilterPlan | None,
    size: int,
    state: ModelState,
    thresholds: Thresholds | None,
    *,
    counted: bool,
) -> Iterator[_Dispatched]:
    """Yield the chunks that follow `state`, each dispatched when it is asked for."""
    rows = None if thresholds is None else [threshold_array(row, model.config.units) for row in thresholds]
    planned = PlannedModel.of(model, plan)
    for piece in read_pieces(ids, size, plan, model.config.vocab_size, state.tokens):
        counts = None
        if not planned.filters(state.tokens):
            hidden, state = model(piece, state)
        elif rows is None or not counted:
            hidden, state = planned.filtered(piece, state, rows)
        else:
            hidden, state, counts = _counted(planned.filtered, piece, state, rows)
        state.begin(*(count for _, count in counts or ()))
        yield _Dispatched(hidden, state, counts)


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


def _computed(
    model: LanguageModel,
    ahead: _Dispatched,
    thresholds: Thresholds | None,
    counted: bool,
    logits: Wanted,
    total: int,
) -> Chunk:
    """Wait for a chunk, in one go with what was counted, and compute the wanted logits."""
    hidden, state = ahead.hidden, ahead.state
    state.evaluate(*(count for _, count in ahead.counts or ()))
    scores = None
    if logits == "all" or (logits == "last" and state.tokens == total):
        scores = values(model.head(hidden if logits == "all" else hidden[:, -1:])[0])
    length = hidden.shape[1]
    kept = _share(length, ahead.counts, thresholds) if counted else None
    return Chunk(state.tokens - length, state, scores, kept)


def _share(length: int, counts: list[tuple[int, mx.array]] | None, thresholds: Thresholds | None) -> Kept:
    """The share of filtered units that kept each token of a chunk, from computed counts; all where there are none."""
    if counts is None or thresholds is None:
        return np.full(length, ALL_KEPT, np.uint8)
    total = KeptSum(length)
    for index, kept in counts:
        threshold = thresholds[index]
        if threshold is not None:
            total.add(np.array(kept)[0], threshold)
    return total.share()
