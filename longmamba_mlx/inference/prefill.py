"""Prefill: read token ids in chunks into a document state, with progress.

Two orders give the same state. Chunkwise (all layers of a chunk, then the next chunk) when the plan's thresholds are
known beforehand; layerwise (all chunks of a layer, then the next layer) when a layer's thresholds depend on the whole
document's step sizes, as in the `document` mode: the layer's step sizes are computed first, then its thresholds, then
the layer itself, on inputs that the layers below have already filtered.

A chunkwise prefill can resume from the state after any chunk, with bitwise the same result. A layerwise one has no such
state before its end and holds the whole document's activations: it starts again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Literal

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import NumericError, StoppedError
from longmamba_mlx.filtering import FilterPlan
from longmamba_mlx.ground.steps import Stop, run_to_end
from longmamba_mlx.inference import gpu_memory
from longmamba_mlx.inference.filtered import filtered_model
from longmamba_mlx.inference.kept_share import MOST_TOKENS, KeptSum
from longmamba_mlx.inference.layerwise import layerwise_steps, passes
from longmamba_mlx.inference.lookahead import one_ahead
from longmamba_mlx.inference.pieces import Ids, pieces_from, read_piece
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.ops import metal_check
from longmamba_mlx.ops.checks import threshold_array
from longmamba_mlx.system import resident_bytes
from longmamba_mlx.tokenization.offsets import ALL_KEPT

Wanted = Literal["none", "last", "all"]
Kept = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` tokens after `seconds`, `before` of them in an earlier run; resident `memory` in bytes."""

    done: int
    total: int
    seconds: float
    memory: int
    before: int = 0

    @property
    def tokens_per_second(self) -> float:
        return (self.done - self.before) / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float:
        now = self.done - self.before
        return self.seconds * (self.total - self.done) / now if now else float("inf")


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


@dataclass(frozen=True)
class PrefillOptions:
    """The options of `prefill`, which describes them."""

    chunk: int = 512
    should_stop: Stop | None = None
    logits: Wanted = "last"
    start: Reading | None = None
    on_chunk: Callable[[ModelState, Kept | None], object] | None = None


class _Clock:
    """Counts work in tokens times layers and reports it in tokens."""

    def __init__(self, tokens: int, passes: int, options: PrefillOptions, before: int = 0) -> None:
        self.tokens, self.passes, self.work, self.before = tokens, passes, before * passes, before
        self.started = time.monotonic()
        self._should_stop = options.should_stop

    def advance(self, tokens: int) -> Progress:
        self.work += tokens
        at_end = self.work >= self.tokens * self.passes  # then there is nothing left to stop
        if self._should_stop is not None and self._should_stop() and not at_end:
            raise StoppedError
        done = self.work // self.passes
        return Progress(done, self.tokens, time.monotonic() - self.started, resident_bytes(), self.before)


def prefill(
    model: LanguageModel,
    ids: Ids,
    plan: FilterPlan | None,
    *,
    chunk: int = 512,
    on_progress: Callable[[Progress], object] | None = None,
    should_stop: Stop | None = None,
    logits: Wanted = "last",
    start: Reading | None = None,
    on_chunk: Callable[[ModelState, Kept | None], object] | None = None,
) -> Reading:
    """Read ids (S,) with `plan` (None: nothing is filtered), `chunk` tokens per model call.

    The state does not depend on `chunk` (Mamba-2 on a Mac's GPU: among multiples of 64). `should_stop` is called after
    every chunk. `start` is the reading of the first tokens of these ids with the same plan; if it ended after whole
    chunks, the result is bitwise that of a single run.
    `on_chunk` receives the state and the kept shares after every chunk (not in a layerwise prefill).

    Raises StoppedError, NumericError for a state or logits that are not finite, ValueError for no tokens or a chunk
    below 1.
    """
    options = PrefillOptions(chunk, should_stop, logits, start, on_chunk)
    return run_to_end(prefill_steps(model, ids, plan, options), on_progress)


def prefill_steps(
    model: LanguageModel, ids: Ids, plan: FilterPlan | None, options: PrefillOptions
) -> Generator[Progress, None, Reading]:
    """`prefill` as a generator: yields Progress, returns the Reading."""
    if not len(ids) or np.ndim(ids[:1]) != 1 or options.chunk < 1:
        raise ValueError(f"ids must be (S,) with S > 0 and chunk > 0, got {len(ids)} ids and {options.chunk}")
    with gpu_memory.resident():
        if plan is not None and plan.needs_document:
            reading = yield from _layerwise(model, ids, plan, options)
        else:
            reading = yield from _chunkwise(model, ids, plan, options)
    if not reading.state.is_finite() or (reading.logits is not None and not np.isfinite(reading.logits).all()):
        raise NumericError("The model's state holds NaN or infinity.", hint="The weights may be broken.")
    return reading


def _chunks(model: LanguageModel, ids: Ids, chunk: int, plan: FilterPlan | None, first: int = 0) -> Iterator[mx.array]:
    """Yield chunks (1, l) from token `first` on."""
    for piece in pieces_from(first, len(ids), chunk, plan):
        yield read_piece(ids, piece, model.config.vocab_size)


def _chunkwise(
    model: LanguageModel, ids: Ids, plan: FilterPlan | None, options: PrefillOptions
) -> Generator[Progress, None, Reading]:
    layers = range(model.config.n_layer)
    thresholds = None if plan is None or not plan.has_thresholds else [plan.thresholds(index) for index in layers]
    state = model.initial_state() if options.start is None else options.start.state
    kept = None if thresholds is None or len(ids) > MOST_TOKENS else np.zeros(len(ids), np.uint8)
    if kept is not None and options.start is not None:
        if options.start.kept is None:
            kept = None
        else:
            kept[: state.tokens] = options.start.kept
    clock = _Clock(len(ids), 1, options, state.tokens)
    all_logits: list[NDArray[np.float32]] = []
    at = start = state.tokens
    end = None
    for chunk in _computed(model, ids, plan, options.chunk, state, thresholds, counted=kept is not None):
        before, at = at, chunk.state.tokens
        first = at - chunk.hidden.shape[1]
        if kept is not None and thresholds is not None:
            kept[first:at] = ALL_KEPT if chunk.counts is None else _share(chunk, thresholds)
        if options.logits == "all":
            if first == start:
                all_logits.clear()
            all_logits.append(np.array(model.head(chunk.hidden)[0]))
        if options.on_chunk is not None:
            options.on_chunk(chunk.state, None if kept is None else kept[:at])
        end = chunk if at == len(ids) else None
        del chunk
        yield clock.advance(at - before)
    hidden, state = (None, state) if end is None else (end.hidden, end.state)
    return Reading(state, _logits(model, hidden, all_logits, options.logits), plan, kept)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A chunk that is dispatched and perhaps not computed yet: hidden (1, l, d_model), the state after it, and for each
    filtered layer its index and how many units kept each token, (1, l); None where that is not counted."""

    hidden: mx.array
    state: ModelState
    counts: list[tuple[int, mx.array]] | None


def _computed(
    model: LanguageModel,
    ids: Ids,
    plan: FilterPlan | None,
    size: int,
    state: ModelState,
    thresholds: list[NDArray[np.float32] | None] | None,
    *,
    counted: bool,
) -> Iterator[_Chunk]:
    """Yield the chunks of at most `size` tokens that follow `state`, computed.

    Where a Metal kernel fails, plain MLX takes over: after the last computed chunk, or from `state` again where
    attention has overwritten its keys and values by then.
    """
    # Attention writes keys and values in place only if nothing else refers to the previous state: no lookahead there.
    overwrites = state.nbytes_per_token > 0
    while True:
        chunks = _dispatched(model, ids, plan, size, state, thresholds, counted=counted)
        try:
            for chunk in chunks if overwrites else one_ahead(chunks):
                chunk.state.evaluate(*(counts for _, counts in chunk.counts or ()))
                if not overwrites:
                    state = chunk.state
                yield chunk
                del chunk
                if overwrites:
                    gpu_memory.give_back()  # the keys and values of before, whose size no later chunk needs
        except (RuntimeError, ValueError) as error:
            if not metal_check.give_up(error):
                raise
        else:
            return


def _dispatched(
    model: LanguageModel,
    ids: Ids,
    plan: FilterPlan | None,
    size: int,
    state: ModelState,
    thresholds: list[NDArray[np.float32] | None] | None,
    *,
    counted: bool,
) -> Iterator[_Chunk]:
    """Yield the chunks of at most `size` tokens that follow `state`, each dispatched when it is asked for."""
    rows = None if thresholds is None else [threshold_array(row, model.config.units) for row in thresholds]
    filtered = filtered_model(model, plan)
    for piece in _chunks(model, ids, size, plan, state.tokens):
        counts = None
        protected = plan is not None and not plan.filters(state.tokens)
        if rows is None or protected or not counted:
            hidden, state = (model if protected else filtered)(piece, state, None if protected else rows)
        else:
            hidden, state, counts = _counted(filtered, piece, state, rows)
        state.begin(*(count for _, count in counts or ()))
        yield _Chunk(hidden, state, counts)


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


def _share(chunk: _Chunk, thresholds: list[NDArray[np.float32] | None]) -> Kept:
    """The share of filtered units that kept each token of a chunk."""
    total = KeptSum(chunk.hidden.shape[1])
    for index, kept in chunk.counts or ():
        threshold = thresholds[index]
        if threshold is not None:
            total.add(np.array(kept)[0], threshold)
    return total.share()


def _layerwise(
    model: LanguageModel, ids: Ids, plan: FilterPlan, options: PrefillOptions
) -> Generator[Progress, None, Reading]:
    clock = _Clock(len(ids), passes(model, plan), options)
    embedded = [model.embed(piece) for piece in _chunks(model, ids, options.chunk, plan)]
    end = yield from layerwise_steps(model, embedded, len(ids), plan, options.chunk, clock)
    all_logits = [np.array(model.head(piece)[0]) for piece in end.hidden] if options.logits == "all" else []
    logits = _logits(model, end.hidden[-1], all_logits, options.logits)
    return Reading(end.state, logits, plan.resolved(end.thresholds), end.kept)


def _logits(
    model: LanguageModel, hidden: mx.array | None, all_logits: list[NDArray[np.float32]], wanted: Wanted
) -> NDArray[np.float32] | None:
    if wanted == "all":
        return np.concatenate(all_logits)
    if wanted == "none" or hidden is None:
        return None
    return np.array(model.head(hidden[:, -1:])[0, 0])
