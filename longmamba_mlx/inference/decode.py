"""Document state + question ids -> answer ids, one at a time. Knows token ids, never text.

Nothing is filtered here: LongMamba filters the document while it is read, never a question or an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import NumericError
from longmamba_mlx.inference.lookahead import ahead
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.state import ModelState

_CHUNK = 512  # tokens of a prompt that a model call reads


def generate(
    model: LanguageModel,
    state: ModelState,
    prompt: NDArray[np.uint32],
    *,
    max_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    stop_ids: Collection[int] = (),
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[int]:
    """Yield at most `max_tokens` ids that follow prompt (n,), n > 0, read on top of `state`.

    `state` itself stays as it is: its arrays are never changed, so any number of questions can start from it.
    Ends before an id of `stop_ids`, or when `should_stop()`. temperature 0 takes the likeliest id; above it, ids are
    drawn with `seed`. Raises NumericError for logits that are not finite.
    """
    read = advance(model, state, prompt, should_stop)
    if read is None:
        return
    chosen = _choices(model, *read, mx.random.key(seed), temperature, max_tokens)
    del read  # or its state would be held to the end of the answer
    for upcoming in ahead(chosen):
        token = upcoming.known()
        if token in stop_ids or (should_stop is not None and should_stop()):
            return
        yield token


@dataclass(frozen=True, slots=True)
class _Upcoming:
    """An id that is chosen but need not be computed yet: chosen () of the vocabulary; finite () bool, whether all
    logits were."""

    chosen: mx.array
    finite: mx.array

    def known(self) -> int:
        """The id, once it is computed."""
        mx.eval(self.chosen, self.finite)
        if not bool(self.finite.item()):
            raise NumericError("The model's output holds NaN or infinity.", hint="The weights may be broken.")
        return int(np.array(self.chosen))


def _choices(
    model: LanguageModel, hidden: mx.array, state: ModelState, key: mx.array, temperature: float, most: int
) -> Iterator[_Upcoming]:
    """The ids that follow hidden (1, l, d_model), each begun when it is asked for."""
    for left in reversed(range(most)):
        logits = model.head(hidden[:, -1:])[0, 0]
        key, draw = mx.random.split(key)
        chosen = mx.argmax(logits) if temperature <= 0 else mx.random.categorical(logits / temperature, key=draw)
        upcoming = _Upcoming(chosen, mx.isfinite(logits).all())
        state.begin(upcoming.chosen, upcoming.finite)
        yield upcoming
        if left:
            # Nobody else holds the state before: attention's keys and values are written in place.
            hidden, state = model(chosen.reshape(1, 1), state)


def advance(
    model: LanguageModel, state: ModelState, ids: NDArray[np.uint32], should_stop: Callable[[], bool] | None = None
) -> tuple[mx.array, ModelState] | None:
    """Read ids (n,), n > 0, unfiltered -> the last chunk's hidden (1, l, d_model), the state after them.

    None when `should_stop()` before the last chunk: a question may be as long as a book.
    """
    hidden = None
    for start in range(0, len(ids), _CHUNK):
        if should_stop is not None and should_stop():
            return None
        hidden, state = model(mx.array(ids[None, start : start + _CHUNK]), state)
        state.evaluate()
    if hidden is None:
        raise ValueError("there is nothing to read")
    return hidden, state
