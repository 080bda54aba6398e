"""Decode: a document state and the ids of a question give the ids of an answer, one at a time.

Nothing is filtered here: LongMamba filters a document during prefill, never a question or an answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import NumericError
from longmamba_mlx.inference.lookahead import one_ahead
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.steps import Stop

_CHUNK = 512  # prompt tokens per model call


def generate(
    model: LanguageModel,
    state: ModelState,
    prompt: NDArray[np.uint32],
    *,
    max_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    stop_ids: Collection[int] = (),
    should_stop: Stop | None = None,
) -> Iterator[int]:
    """Yield at most `max_tokens` ids that follow prompt (n,), n > 0, read on top of `state`.

    The arrays of `state` are never changed, so any number of questions can start from it. Ends before an id of
    `stop_ids`, or when `should_stop()`. Temperature 0 takes the most likely id; above it, ids are sampled with `seed`.
    Raises NumericError for logits that are not finite.
    """
    read = advance(model, state, prompt, should_stop)
    if read is None:
        return
    chosen = _choices(model, *read, mx.random.key(seed), temperature, max_tokens)
    del read  # its state would otherwise stay in memory until the end of the answer
    for upcoming in one_ahead(chosen):
        token = upcoming.known()
        if token in stop_ids or (should_stop is not None and should_stop()):
            return
        yield token


@dataclass(frozen=True, slots=True)
class _Upcoming:
    """An id that is dispatched and perhaps not computed yet: chosen () of the vocabulary; finite () bool, whether all
    logits are."""

    chosen: mx.array
    finite: mx.array

    def known(self) -> int:
        """Wait for the id."""
        mx.eval(self.chosen, self.finite)
        if not bool(self.finite.item()):
            raise NumericError("The model's output holds NaN or infinity.", hint="The weights may be broken.")
        return int(np.array(self.chosen))


def _choices(
    model: LanguageModel, hidden: mx.array, state: ModelState, key: mx.array, temperature: float, count: int
) -> Iterator[_Upcoming]:
    """Yield the `count` ids that follow hidden (1, l, d_model), each dispatched when it is asked for."""
    for left in reversed(range(count)):
        logits = model.head(hidden[:, -1:])[0, 0]
        key, draw = mx.random.split(key)
        chosen = mx.argmax(logits) if temperature <= 0 else mx.random.categorical(logits / temperature, key=draw)
        upcoming = _Upcoming(chosen, mx.isfinite(logits).all())
        state.begin(upcoming.chosen, upcoming.finite)
        yield upcoming
        if left:
            # The previous state has no other reference: attention writes keys and values in place.
            hidden, state = model(chosen.reshape(1, 1), state)


def advance(
    model: LanguageModel, state: ModelState, ids: NDArray[np.uint32], should_stop: Stop | None = None
) -> tuple[mx.array, ModelState] | None:
    """Read ids (n,), n > 0, unfiltered -> the last chunk's hidden (1, l, d_model), the state after all of them.

    None when `should_stop()` before the last chunk: a question may be as long as a book.
    """
    hidden = None
    for start in range(0, len(ids), _CHUNK):
        if should_stop is not None and should_stop():
            return None
        hidden, state = model(mx.array(ids[None, start : start + _CHUNK]), state)
        state.evaluate()
    if hidden is None:
        raise ValueError("there are no ids to read")
    return hidden, state
