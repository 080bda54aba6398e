"""Prefill: read token ids in chunks into a document state, with progress.

Two orders give the same state. Chunkwise (all layers of a chunk, then the next chunk) when the plan's thresholds are
known beforehand; layerwise (all chunks of a layer, then the next layer) when a layer's thresholds depend on the whole
document's step sizes, as in the `document` mode: the layer's step sizes are computed first, then its thresholds, then
the layer itself, on inputs that the layers below have already filtered.

A chunkwise prefill can resume from the state after any chunk, with bitwise the same result. A layerwise one has no such
state before its end and holds the whole document's activations: it starts again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.filtering import FilterPlan
from longmamba_mlx.ground.steps import Stop, run_to_end
from longmamba_mlx.inference import gpu_memory
from longmamba_mlx.inference.chunkwise import chunks
from longmamba_mlx.inference.kept_share import Kept
from longmamba_mlx.inference.layerwise import layerwise_steps, passes
from longmamba_mlx.inference.pieces import Ids, read_pieces
from longmamba_mlx.inference.progress import Clock, Progress
from longmamba_mlx.inference.reading import PrefillOptions, Reading, Wanted, check_ids, finite, kept_so_far
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.numpy_layers import for_length
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.ops import numpy_backed
from longmamba_mlx.ops.fallback import steps_with_fallback
from longmamba_mlx.ops.values import values

# Tokens per model call. More of them keep a GPU busier: fewer launches, and passes over the weights and states.
_ON_GPU, _ELSEWHERE = 2048, 512


def chunk_or_default(chunk: int | None) -> int:
    """The tokens per model call where `chunk` are wanted; None: 2,048 on a GPU, else 512."""
    if chunk is not None:
        return chunk
    return _ON_GPU if gpu_memory.on_gpu() and not numpy_backed() else _ELSEWHERE


def prefill(
    model: LanguageModel,
    ids: Ids,
    plan: FilterPlan | None,
    *,
    chunk: int | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    should_stop: Stop | None = None,
    logits: Wanted = "last",
    start: Reading | None = None,
    on_chunk: Callable[[ModelState, Kept | None], object] | None = None,
) -> Reading:
    """Read ids (S,) with `plan` (None: nothing is filtered), `chunk` tokens per model call (`chunk_or_default`).

    The state depends on `chunk` only by rounding. `should_stop` is called after every chunk. `start` is the reading of
    the first tokens of these ids with the same plan; if it ended after a whole chunk (at a multiple of `chunk`, or at
    the edge of a protected part), the result is bitwise that of a single run.
    `on_chunk` receives the state and the kept shares after every chunk (not in a layerwise prefill).

    Raises StoppedError, NumericError for a state or logits that are not finite, ValueError for no tokens or a chunk
    below 1.
    """
    options = PrefillOptions(chunk_or_default(chunk), should_stop, start, on_chunk, logits)
    return run_to_end(prefill_steps(model, ids, plan, options), on_progress)


def prefill_steps(
    model: LanguageModel, ids: Ids, plan: FilterPlan | None, options: PrefillOptions
) -> Generator[Progress, None, Reading]:
    """`prefill` as a generator: yields Progress, returns the Reading."""
    check_ids(ids, options.chunk)
    model = for_length(model, len(ids))
    with gpu_memory.resident():
        if plan is not None and plan.needs_document:
            reading = yield from _layerwise(model, ids, plan, options)
        else:
            reading = yield from _chunkwise(model, ids, plan, options)
    return finite(reading)


def _chunkwise(
    model: LanguageModel, ids: Ids, plan: FilterPlan | None, options: PrefillOptions
) -> Generator[Progress, None, Reading]:
    state = model.initial_state() if options.start is None else options.start.state
    kept = kept_so_far(len(ids), plan, options.start)
    clock = Clock(len(ids), before=state.tokens, should_stop=options.should_stop)
    rows: list[NDArray[np.float32]] = []
    at = start = state.tokens
    for chunk in chunks(model, ids, plan, options.chunk, state, counted=kept is not None, logits=options.logits):
        before, at = at, chunk.state.tokens
        if chunk.first == start:  # also where a kernel failed and everything is read again
            rows.clear()
        if chunk.logits is not None:
            rows.append(chunk.logits)
        if kept is not None and chunk.kept is not None:
            kept[chunk.first : at] = chunk.kept
        if options.on_chunk is not None:
            options.on_chunk(chunk.state, None if kept is None else kept[:at])
        if at == len(ids):
            state = chunk.state  # that of a chunk before must not be held: attention overwrites it
        del chunk
        yield clock.advance(at - before)
    return Reading(state, _wanted(rows, options.logits), plan, kept)


def _layerwise(
    model: LanguageModel, ids: Ids, plan: FilterPlan, options: PrefillOptions
) -> Generator[Progress, None, Reading]:
    def begin() -> Generator[Progress, None, Reading]:
        clock = Clock(len(ids), should_stop=options.should_stop)
        clock.begin(0, len(ids), len(ids) * passes(model, plan))
        embedded = [model.embed(piece) for piece in read_pieces(ids, options.chunk, plan, model.config.vocab_size)]
        end = yield from layerwise_steps(model, embedded, len(ids), plan, options.chunk, clock)
        hidden = {"none": [], "last": [end.hidden[-1][:, -1:]], "all": end.hidden}[options.logits]
        rows = [values(model.head(piece)[0]) for piece in hidden]
        return Reading(end.state, _wanted(rows, options.logits), plan.resolved(end.thresholds), end.kept)

    return steps_with_fallback(begin)  # again from the beginning where a kernel fails while tokens are dropped


def _wanted(rows: list[NDArray[np.float32]], wanted: Wanted) -> NDArray[np.float32] | None:
    """`Reading.logits` from the logits (n, vocab) that were computed."""
    if wanted == "all":
        return np.concatenate(rows)
    return rows[-1][-1] if rows else None
