"""Document state + question ids -> answer ids, one at a time. Knows token ids, never text.

Nothing is filtered here: LongMamba filters the document while it is read, never a question or an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import NumericError
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
    key = mx.random.key(seed)
    read = advance(model, state, prompt, should_stop)
    if read is None:
        return
    hidden, state = read
    for _ in range(max_tokens):
        logits = model.head(hidden[:, -1:])[0, 0]
        if not bool(mx.isfinite(logits).all().item()):
            raise NumericError("The model's output holds NaN or infinity.", hint="The weights may be broken.")
        key, draw = mx.random.split(key)
        chosen = mx.argmax(logits) if temperature <= 0 else mx.random.categorical(logits / temperature, key=draw)
        token = int(np.array(chosen))
        if token in stop_ids or (should_stop is not None and should_stop()):
            return
        yield token
        hidden, state = model(chosen.reshape(1, 1), state)
        state.evaluate()


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
