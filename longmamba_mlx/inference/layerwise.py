"""Layerwise prefill: all chunks through one layer, then the next, for filters that need the whole document first.

A plan's layer may need its step sizes for its thresholds (`document`), or to choose which tokens it drops
(`decimamba`). Holds the document's activations: tokens * d_model * 4 bytes.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import partial

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.filtering import FilterPlan
from longmamba_mlx.inference.decimation import decimate
from longmamba_mlx.inference.filtered import PlannedModel
from longmamba_mlx.inference.kept_share import MOST_TOKENS, Kept, KeptSum
from longmamba_mlx.inference.progress import Clock, Progress
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.state import LayerState, ModelState
from longmamba_mlx.ops.checks import threshold_array
from longmamba_mlx.ops.fallback import with_fallback
from longmamba_mlx.tokenization.offsets import ALL_KEPT

Thresholds = NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class LayerwiseResult:
    """The last layer's chunks (1, l, d_model), the state, every layer's thresholds, and per token the share of
    filterable units that kept it (ALL_KEPT: all), None where nothing was filtered."""

    hidden: list[mx.array]
    state: ModelState
    thresholds: list[Thresholds]
    kept: Kept | None


def passes(model: LanguageModel, plan: FilterPlan) -> int:
    """How often the document is read, counting each layer: twice by layers whose thresholds depend on it."""
    return sum(1 + (plan.waits(index) or plan.drops(index)) for index in range(model.config.n_layer))


def layerwise_steps(
    model: LanguageModel, hidden: list[mx.array], tokens: int, plan: FilterPlan, chunk: int, clock: Clock
) -> Generator[Progress, None, LayerwiseResult]:
    """Run embedded chunks (1, l, d_model) of a document of `tokens` tokens through all layers with `plan`.

    Yields Progress for each unit of work, and returns the result. The list `hidden` is overwritten.
    """
    initial, after, fixed = model.initial_state(), [], []
    total, left, planned = KeptSum(tokens), np.arange(tokens), PlannedModel.of(model, plan)
    for index in range(model.config.n_layer):
        state, raw = initial.layers[index], None
        if plan.waits(index) or plan.drops(index):
            raw = yield from _raw_steps(model, index, hidden, state, clock)
        fixed.append(plan.resolve(index, raw) if raw is not None else plan.thresholds(index))
        positions = None if raw is None else plan.kept_positions(index, raw)
        if positions is None:
            state = yield from layer_steps(planned, index, hidden, state, fixed[-1], total, clock)
        else:
            hidden, state = yield from decimate(model, index, hidden, state, positions, chunk, clock)
            left = left[positions]
        if len(left) < tokens:
            yield clock.advance(tokens - len(left))  # dropped tokens need no more work
        after.append(state)
    return LayerwiseResult(
        hidden, ModelState(layers=tuple(after), tokens=tokens), fixed, _share(total, fixed, left, tokens)
    )


def _raw_steps(
    model: LanguageModel, index: int, hidden: list[mx.array], state: LayerState, clock: Clock
) -> Generator[Progress, None, NDArray[np.float32]]:
    """Compute the raw step sizes of the whole document in one layer, (S, units) float32."""
    pieces = []
    for piece in hidden:
        raw, state = with_fallback(partial(_raw, model, index, piece, state))
        pieces.append(raw)
        yield clock.advance(piece.shape[1])
    return np.concatenate(pieces)


def _raw(
    model: LanguageModel, index: int, piece: mx.array, state: LayerState
) -> tuple[NDArray[np.float32], LayerState]:
    """The raw step sizes of a chunk, (l, units), and the state with its convolution window after it."""
    raw, state = model.raw_step(index, piece, state)
    mx.eval(raw, *state.buffers())
    return np.array(raw, np.float32)[0], state


def layer_steps(
    planned: PlannedModel,
    index: int,
    hidden: list[mx.array],
    state: LayerState,
    threshold: Thresholds,
    total: KeptSum,
    clock: Clock,
    first: int = 0,
) -> Generator[Progress, None, LayerState]:
    """Run one layer over chunks: replaces those of `hidden`, adds to `total`, returns the state after them.

    `first` is the chunks' first token in the document.
    """
    row, at = threshold_array(threshold, planned.model.config.units), 0
    for number, piece in enumerate(hidden):
        filters = planned.filters(first + at)
        model = planned.filtered if filters else planned.model
        counts = None
        if threshold is not None and filters:
            hidden[number], state, counts = with_fallback(partial(_counted, model, index, piece, state, row))
        elif model.has_scan(index):
            hidden[number], state = with_fallback(partial(_computed, model, index, piece, state))
        else:  # no kernels of ours; and attention writes in place only what nothing else holds
            hidden[number], state = model.layer(index, piece, state)
            mx.eval(hidden[number], *state.buffers())
        if threshold is not None:
            total.add(np.full(piece.shape[1], threshold.size, np.int32) if counts is None else counts, threshold, at)
        at += piece.shape[1]
        yield clock.advance(piece.shape[1])
    return state


def _counted(
    model: LanguageModel, index: int, piece: mx.array, state: LayerState, row: mx.array | None
) -> tuple[mx.array, LayerState, NDArray[np.int32]]:
    """A chunk through a filtered layer: its output, the state after it, how many units kept each token (l,)."""
    hidden, state, counts = model.layer(index, piece, state, row, return_kept=True)
    mx.eval(hidden, *state.buffers(), counts)
    return hidden, state, np.array(counts)[0]


def _computed(model: LanguageModel, index: int, piece: mx.array, state: LayerState) -> tuple[mx.array, LayerState]:
    """A chunk through a layer: its output and the state after it."""
    hidden, state = model.layer(index, piece, state)
    mx.eval(hidden, *state.buffers())
    return hidden, state


def _share(total: KeptSum, fixed: list[Thresholds], left: NDArray[np.intp], tokens: int) -> Kept | None:
    """The share of filterable units that kept each token; for a decimated document, ALL_KEPT for the tokens left."""
    if tokens > MOST_TOKENS:
        return None
    if len(left) < tokens:
        share = np.zeros(tokens, np.uint8)
        share[left] = ALL_KEPT
        return share
    return total.share() if any(values is not None for values in fixed) else None
