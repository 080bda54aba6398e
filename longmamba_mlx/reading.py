"""Token ids -> document state, in chunks, with progress; knows no text.

Two orders give the same state. Chunk by chunk (all layers of a chunk, then the next chunk) when the plan's thresholds
are known beforehand; layer by layer (all chunks of a layer, then the next layer) when a layer's thresholds depend on
the whole document's step sizes, as in the `document` mode: the layer's step sizes are computed first, then its
thresholds, then the layer itself on inputs that the layers below have already filtered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import NumericError, StoppedError
from longmamba_mlx.longmamba import FilterPlan
from longmamba_mlx.memory import resident_bytes
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.state import LayerState, ModelState

Wanted = Literal["none", "last", "all"]
Ids = NDArray[np.uint32]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` tokens after `seconds`; `memory` in bytes."""

    done: int
    total: int
    seconds: float
    memory: int

    @property
    def tokens_per_second(self) -> float:
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float:
        return self.seconds * (self.total - self.done) / self.done if self.done else float("inf")


@dataclass(frozen=True)
class Reading:
    """What reading gives: the state after the last token, logits as asked for, the plan with its thresholds fixed.

    `logits` is (vocab,) for "last", (S, vocab) for "all", float32, None for "none".
    """

    state: ModelState
    logits: NDArray[np.float32] | None
    plan: FilterPlan | None


class _Clock:
    """Counts work in token-layers and tells it in tokens."""

    def __init__(self, tokens: int, passes: int, should_stop: Callable[[], bool] | None) -> None:
        self.tokens, self.passes, self.work = tokens, passes, 0
        self.started = time.monotonic()
        self._should_stop = should_stop

    def advance(self, tokens: int, passes: int = 1) -> Progress:
        if self._should_stop is not None and self._should_stop():
            raise StoppedError("The reading was stopped.", hint="Run the same command again to read it.")
        self.work += tokens * passes
        done = self.work // self.passes
        return Progress(done, self.tokens, time.monotonic() - self.started, resident_bytes())


def read_tokens(
    model: LanguageModel,
    ids: Ids,
    plan: FilterPlan | None,
    *,
    chunk: int = 512,
    on_progress: Callable[[Progress], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
    logits: Wanted = "last",
) -> Reading:
    """Read ids (S,) with `plan` (None: nothing filtered), `chunk` tokens to a model call.

    The state does not depend on `chunk`. `should_stop` is asked after every chunk. Raises StoppedError, NumericError
    for a state or logits that are not finite, ValueError for no tokens or a chunk below 1.
    """
    steps = reading_steps(model, ids, plan, chunk=chunk, should_stop=should_stop, logits=logits)
    return run_to_end(steps, on_progress)


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
    model: LanguageModel,
    ids: Ids,
    plan: FilterPlan | None,
    *,
    chunk: int = 512,
    should_stop: Callable[[], bool] | None = None,
    logits: Wanted = "last",
) -> Generator[Progress, None, Reading]:
    """`read_tokens` as a generator: yields Progress, returns the Reading."""
    ids = np.asarray(ids, np.uint32)
    if ids.ndim != 1 or not len(ids) or chunk < 1:
        raise ValueError(f"ids must be (S,) with S > 0 and chunk > 0, got {ids.shape} and {chunk}")
    if int(ids.max()) >= model.config.vocab_size:
        raise ValueError(f"token {int(ids.max())} is outside the vocabulary of {model.config.vocab_size}")
    if plan is not None and plan.needs_document:
        reading = yield from _by_layer(model, ids, plan, chunk, should_stop, logits)
    else:
        reading = yield from _by_chunk(model, ids, plan, chunk, should_stop, logits)
    if not reading.state.is_finite() or (reading.logits is not None and not np.isfinite(reading.logits).all()):
        raise NumericError("The model's state holds NaN or infinity.", hint="The weights may be broken.")
    return reading


def _chunks(ids: Ids, chunk: int) -> Iterator[mx.array]:
    for start in range(0, len(ids), chunk):
        yield mx.array(ids[None, start : start + chunk])


def _by_chunk(
    model: LanguageModel,
    ids: Ids,
    plan: FilterPlan | None,
    chunk: int,
    should_stop: Callable[[], bool] | None,
    logits: Wanted,
) -> Generator[Progress, None, Reading]:
    layers = range(model.config.n_layer)
    thresholds = None if plan is None else [_array(plan.thresholds(index)) for index in layers]
    clock = _Clock(len(ids), 1, should_stop)
    state, kept = model.initial_state(), []
    hidden = None
    for piece in _chunks(ids, chunk):
        hidden, state = model(piece, state, thresholds)
        if logits == "all":
            kept.append(np.array(model.head(hidden)[0]))
        state.evaluate()
        yield clock.advance(piece.shape[1])
    return Reading(state, _logits(model, hidden, kept, logits), plan)


def _by_layer(
    model: LanguageModel,
    ids: Ids,
    plan: FilterPlan,
    chunk: int,
    should_stop: Callable[[], bool] | None,
    logits: Wanted,
) -> Generator[Progress, None, Reading]:
    layers = range(model.config.n_layer)
    waiting = sum(plan.waits(index) for index in layers)
    clock = _Clock(len(ids), model.config.n_layer + waiting, should_stop)
    hidden = [model.embed(piece) for piece in _chunks(ids, chunk)]
    initial, after, fixed = model.initial_state(), [], []
    for index in layers:
        if plan.waits(index):
            raw = yield from _raw_steps(model, index, hidden, initial.layers[index], clock)
            fixed.append(plan.resolve(index, raw))
        else:
            fixed.append(plan.thresholds(index))
        state, threshold = initial.layers[index], _array(fixed[-1])
        for number, piece in enumerate(hidden):
            hidden[number], state = model.layer(index, piece, state, threshold)
            mx.eval(hidden[number], state.conv, state.ssm)
            yield clock.advance(piece.shape[1])
        after.append(state)
    whole = [np.array(model.head(piece)[0]) for piece in hidden] if logits == "all" else []
    state_after = ModelState(layers=tuple(after), tokens=len(ids))
    return Reading(state_after, _logits(model, hidden[-1], whole, logits), plan.resolved(fixed))


def _raw_steps(
    model: LanguageModel, index: int, hidden: list[mx.array], state: LayerState, clock: _Clock
) -> Generator[Progress, None, NDArray[np.float32]]:
    """The raw step sizes of a whole document in one layer, (S, units) float32."""
    pieces = []
    for piece in hidden:
        raw, state = model.raw_step(index, piece, state)
        pieces.append(np.array(raw, np.float32)[0])
        yield clock.advance(piece.shape[1])
    return np.concatenate(pieces)


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
