"""Token ids -> document state, in chunks, with progress; knows no text.

Two orders give the same state. Chunk by chunk (all layers of a chunk, then the next chunk) when the plan's thresholds
are known beforehand; layer by layer (all chunks of a layer, then the next layer) when a layer's thresholds depend on
the whole document's step sizes, as in the `document` mode: the layer's step sizes are computed first, then its
thresholds, then the layer itself on inputs that the layers below have already filtered.

Chunk by chunk, a reading can go on from the state after any chunk, with the same numbers to the last bit. Layer by
layer there is no such state before the end, and the whole document's activations are held: it starts again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import NumericError, StoppedError
from longmamba_mlx.filtering import FilterPlan
from longmamba_mlx.inference.kept_share import MOST_TOKENS, KeptSum
from longmamba_mlx.inference.layerwise import passes, read_by_layer
from longmamba_mlx.inference.lookahead import ahead
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.system import resident_bytes
from longmamba_mlx.tokenization.offsets import ALL_KEPT

Wanted = Literal["none", "last", "all"]
Kept = NDArray[np.uint8]
Result = TypeVar("Result")


class Ids(Protocol):
    """Token ids (S,) uint32: an array, or a file that gives slices of them."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> NDArray[np.uint32]: ...


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` tokens after `seconds`, `before` of them in an earlier run; `memory` in bytes."""

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
    """What reading gives: the state after the last token, logits as asked for, the plan with its thresholds fixed.

    `logits` is (vocab,) for "last", (S, vocab) for "all", float32, None for "none". kept (S,) uint8 is the share of
    filtered units that kept each token (`textmap.ALL_KEPT`: all); None where nothing was filtered, or S > 16 million.
    """

    state: ModelState
    logits: NDArray[np.float32] | None
    plan: FilterPlan | None
    kept: Kept | None = None


@dataclass(frozen=True)
class Run:
    """How a reading goes: see `read_tokens`."""

    chunk: int = 512
    should_stop: Callable[[], bool] | None = None
    logits: Wanted = "last"
    start: Reading | None = None
    on_state: Callable[[ModelState, Kept | None], object] | None = None


class _Clock:
    """Counts work in token-layers and tells it in tokens."""

    def __init__(self, tokens: int, passes: int, run: Run, before: int = 0) -> None:
        self.tokens, self.passes, self.work, self.before = tokens, passes, before * passes, before
        self.started = time.monotonic()
        self._should_stop = run.should_stop

    def advance(self, tokens: int) -> Progress:
        self.work += tokens
        at_end = self.work >= self.tokens * self.passes  # then there is nothing left to stop
        if self._should_stop is not None and self._should_stop() and not at_end:
            raise StoppedError
        done = self.work // self.passes
        return Progress(done, self.tokens, time.monotonic() - self.started, resident_bytes(), self.before)


def read_tokens(
    model: LanguageModel,
    ids: Ids,
    plan: FilterPlan | None,
    *,
    chunk: int = 512,
    on_progress: Callable[[Progress], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
    logits: Wanted = "last",
    start: Reading | None = None,
    on_state: Callable[[ModelState, Kept | None], object] | None = None,
) -> Reading:
    """Read ids (S,) with `plan` (None: nothing filtered), `chunk` tokens to a model call.

    The state does not depend on `chunk`. `should_stop` is asked after every chunk. `start` is the reading of the first
    tokens of these ids with the same plan; where it ended after whole chunks, the result is that of one run, bitwise.
    `on_state` gets the state and the kept counts after every chunk (not when reading layer by layer).

    Raises StoppedError, NumericError for a state or logits that are not finite, ValueError for no tokens or a chunk
    below 1.
    """
    run = Run(chunk, should_stop, logits, start, on_state)
    return run_to_end(reading_steps(model, ids, plan, run), on_progress)


def run_to_end(
    steps: Generator[Progress, None, Result], on_progress: Callable[[Progress], object] | None = None
) -> Result:
    """Exhaust a reading generator, hand its Progress on, and return what it returns."""
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
        if on_progress is not None:
            on_progress(progress)


def reading_steps(
    model: LanguageModel, ids: Ids, plan: FilterPlan | None, run: Run
) -> Generator[Progress, None, Reading]:
    """`read_tokens` as a generator: yields Progress, returns the Reading."""
    if not len(ids) or np.ndim(ids[:1]) != 1 or run.chunk < 1:
        raise ValueError(f"ids must be (S,) with S > 0 and chunk > 0, got {len(ids)} ids and {run.chunk}")
    if plan is not None and plan.needs_document:
        reading = yield from _by_layer(model, ids, plan, run)
    else:
        reading = yield from _by_chunk(model, ids, plan, run)
    if not reading.state.is_finite() or (reading.logits is not None and not np.isfinite(reading.logits).all()):
        raise NumericError("The model's state holds NaN or infinity.", hint="The weights may be broken.")
    return reading


def _chunks(model: LanguageModel, ids: Ids, chunk: int, plan: FilterPlan | None, first: int = 0) -> Iterator[mx.array]:
    """Chunks (1, l) from token `first` on; none reaches across the edge of a protected part of the document."""
    start = first
    while start < len(ids):
        stop = min(start + chunk, len(ids) if plan is None else plan.next_edge(start))
        piece = np.asarray(ids[start:stop], np.uint32)
        start = stop
        if int(piece.max()) >= model.config.vocab_size:
            raise ValueError(f"token {int(piece.max())} is outside the vocabulary of {model.config.vocab_size}")
        yield mx.array(piece[None])


def _by_chunk(model: LanguageModel, ids: Ids, plan: FilterPlan | None, run: Run) -> Generator[Progress, None, Reading]:
    layers = range(model.config.n_layer)
    thresholds = None if plan is None else [plan.thresholds(index) for index in layers]
    state = model.initial_state() if run.start is None else run.start.state
    kept = None if thresholds is None or len(ids) > MOST_TOKENS else np.zeros(len(ids), np.uint8)
    if kept is not None and run.start is not None:
        if run.start.kept is None:
            kept = None
        else:
            kept[: state.tokens] = run.start.kept
    clock = _Clock(len(ids), 1, run, state.tokens)
    whole, at, end = [], state.tokens, None
    begun = _begun(model, ids, plan, run.chunk, state, thresholds, counted=kept is not None)
    # Attention writes keys and values in place, unless somebody still holds the state before: nothing is begun ahead.
    for chunk in begun if state.nbytes_per_token else ahead(begun):
        first, at = at, chunk.state.tokens
        chunk.state.evaluate(*(counts for _, counts in chunk.counts or ()))
        if kept is not None and thresholds is not None:
            kept[first:at] = ALL_KEPT if chunk.counts is None else _share(chunk, thresholds)
        if run.logits == "all":
            whole.append(np.array(model.head(chunk.hidden)[0]))
        if run.on_state is not None:
            run.on_state(chunk.state, None if kept is None else kept[:at])
        end = chunk if at == len(ids) else None
        del chunk
        yield clock.advance(at - first)
    hidden, state = (None, state) if end is None else (end.hidden, end.state)
    return Reading(state, _logits(model, hidden, whole, run.logits), plan, kept)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A chunk that need not be computed yet: hidden (1, l, d_model), the state after it, and for each layer that
    filters how many units kept its tokens, (1, l); None where that is not counted."""

    hidden: mx.array
    state: ModelState
    counts: list[tuple[int, mx.array]] | None


def _begun(
    model: LanguageModel,
    ids: Ids,
    plan: FilterPlan | None,
    size: int,
    state: ModelState,
    thresholds: list[NDArray[np.float32] | None] | None,
    *,
    counted: bool,
) -> Iterator[_Begun]:
    """The chunks of at most `size` tokens that come after `state`, each begun when it is asked for."""
    limits = None if thresholds is None else [_array(threshold) for threshold in thresholds]
    for piece in _chunks(model, ids, size, plan, state.tokens):
        counts = None
        protected = plan is not None and not plan.filters(state.tokens)
        if limits is None or protected or not counted:
            hidden, state = model(piece, state, None if protected else limits)
        else:
            hidden, state, counts = _counted(model, piece, state, limits)
        state.begin(*(count for _, count in counts or ()))
        yield _Begun(hidden, state, counts)


def _counted(
    model: LanguageModel, piece: mx.array, state: ModelState, limits: list[mx.array | None]
) -> tuple[mx.array, ModelState, list[tuple[int, mx.array]]]:
    """All layers over one chunk, as `model(...)`, and for each that filters how many units kept its tokens."""
    hidden, after, counts = model.embed(piece), [], []
    for index, limit in enumerate(limits):
        before = state.layers[index]
        if limit is None:
            hidden, layer = model.layer(index, hidden, before)
        else:
            hidden, layer, kept = model.layer(index, hidden, before, limit, return_kept=True)
            counts.append((index, kept))
        after.append(layer)
    return hidden, ModelState(layers=tuple(after), tokens=state.tokens + piece.shape[1]), counts


def _share(chunk: _Begun, thresholds: list[NDArray[np.float32] | None]) -> Kept:
    """The share of filtered units that kept each token of a chunk."""
    total = KeptSum(chunk.hidden.shape[1])
    for index, kept in chunk.counts or ():
        threshold = thresholds[index]
        if threshold is not None:
            total.add(np.array(kept)[0], threshold)
    return total.share()


def _by_layer(model: LanguageModel, ids: Ids, plan: FilterPlan, run: Run) -> Generator[Progress, None, Reading]:
    clock = _Clock(len(ids), passes(model, plan), run)
    embedded = [model.embed(piece) for piece in _chunks(model, ids, run.chunk, plan)]
    end = yield from read_by_layer(model, embedded, len(ids), plan, run.chunk, clock)
    whole = [np.array(model.head(piece)[0]) for piece in end.hidden] if run.logits == "all" else []
    logits = _logits(model, end.hidden[-1], whole, run.logits)
    return Reading(end.state, logits, plan.resolved(end.thresholds), end.kept)


def _array(thresholds: NDArray[np.float32] | None) -> mx.array | None:
    return None if thresholds is None else mx.array(thresholds)


def _logits(
    model: LanguageModel, hidden: mx.array | None, whole: list[NDArray[np.float32]], wanted: Wanted
) -> NDArray[np.float32] | None:
    if wanted == "all":
        return np.concatenate(whole)
    if wanted == "none" or hidden is None:
        return None
    return np.array(model.head(hidden[:, -1:])[0, 0])
