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
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import NumericError, StoppedError
from longmamba_mlx.filtering import FilterPlan
from longmamba_mlx.ground.steps import Stop, run_to_end
from longmamba_mlx.inference import gpu_memory
from longmamba_mlx.inference.chunkwise import Kept, Wanted, chunks
from longmamba_mlx.inference.kept_share import MOST_TOKENS
from longmamba_mlx.inference.layerwise import layerwise_steps, passes
from longmamba_mlx.inference.pieces import Ids, read_pieces
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.ops import numpy_backed
from longmamba_mlx.ops.fallback import steps_with_fallback
from longmamba_mlx.ops.values import values
from longmamba_mlx.system import resident_bytes

__all__ = [
    "Ids",
    "Kept",
    "PrefillOptions",
    "Progress",
    "Reading",
    "Wanted",
    "chunk_or_default",
    "prefill",
    "prefill_steps",
]

# Tokens per model call. More of them keep a GPU busier: fewer launches, and passes over the weights and states.
_ON_GPU, _ELSEWHERE = 2048, 512


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
    options = PrefillOptions(chunk_or_default(chunk), should_stop, logits, start, on_chunk)
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
    rows: list[NDArray[np.float32]] = []
    at = start = state.tokens
    for chunk in chunks(
        model, ids, plan, options.chunk, state, thresholds, counted=kept is not None, logits=options.logits
    ):
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
        clock = _Clock(len(ids), passes(model, plan), options)
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
