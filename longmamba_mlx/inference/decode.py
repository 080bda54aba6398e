"""Decode: a document state and the ids of a question give the ids of an answer, one at a time.

Nothing is filtered here: LongMamba filters a document during prefill, never a question or an answer.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import NumericError, StoppedError
from longmamba_mlx.ground.steps import Stop
from longmamba_mlx.inference import gpu_memory
from longmamba_mlx.inference.lookahead import one_ahead
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.decode_step import decode_step
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.ops.fallback import steps_with_fallback, with_fallback
from longmamba_mlx.ops.token_ids import token_ids
from longmamba_mlx.ops.values import values

CHUNK = 512  # prompt tokens per model call


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
    Raises NumericError for logits that are not finite, ModelError for a prompt outside the vocabulary.
    """
    ids: list[int] = []

    def begin() -> Generator[int, None, None]:
        """Start the rest of the answer, after the part that is done; a failed kernel costs reading that part again."""
        read = advance(model, state, np.append(prompt, np.asarray(ids, np.uint32)), should_stop)
        if read is None:
            return
        chosen = _choices(model, *read, _Chooser(temperature, seed, len(ids)), max_tokens - len(ids))
        del read  # its state would otherwise stay in memory until the end of the answer
        for upcoming in one_ahead(chosen):
            token = int(values(upcoming))
            if token == _NOT_FINITE:
                raise not_finite()
            if token in stop_ids or (should_stop is not None and should_stop()):
                return
            ids.append(token)
            yield token

    with gpu_memory.resident():
        yield from steps_with_fallback(begin)


def not_finite() -> NumericError:
    """The error for logits that are not finite."""
    return NumericError("The model's output holds NaN or infinity.", hint="The weights may be broken.")


_NOT_FINITE = -1  # in place of an id: so one number tells both, and a GPU is asked once a token


class _Chooser:
    """Chooses ids: the most likely one at temperature 0, else samples. `done` ids were chosen before."""

    def __init__(self, temperature: float, seed: int, done: int = 0) -> None:
        self._temperature = temperature
        self._key = mx.random.key(seed) if temperature > 0 else None
        for _ in range(done):
            self._draw()

    def _draw(self) -> mx.array | None:
        """The next of the keys that follow from the seed; None at temperature 0."""
        if self._key is None:
            return None
        self._key, draw = mx.random.split(self._key)
        return draw

    def choose(self, logits: mx.array) -> mx.array:
        """logits (vocab,) -> an id () int32, _NOT_FINITE where not all logits are finite."""
        draw = self._draw()
        chosen = mx.argmax(logits) if draw is None else mx.random.categorical(logits / self._temperature, key=draw)
        return mx.where(mx.isfinite(logits).all(), chosen.astype(mx.int32), _NOT_FINITE)


def _choices(
    model: LanguageModel, hidden: mx.array, state: ModelState, chooser: _Chooser, count: int
) -> Iterator[mx.array]:
    """Yield the `count` ids that follow hidden (1, l, d_model), each dispatched when it is asked for."""
    step, logits = decode_step(model), model.head(hidden[:, -1:])
    del hidden
    for number in range(1, count + 1):
        chosen = chooser.choose(logits[0, -1])
        state.begin(chosen)
        yield chosen
        if number % gpu_memory.CLEARED_EVERY == 0:
            gpu_memory.give_back()
        if number < count:
            # The previous state has no other reference: attention writes keys and values in place.
            logits, state = step(chosen.reshape(1, 1), state)


def advance(
    model: LanguageModel, state: ModelState, ids: NDArray[np.uint32], should_stop: Stop | None = None
) -> tuple[mx.array, ModelState] | None:
    """Read ids (n,), n > 0, unfiltered -> the last chunk's hidden (1, l, d_model), the state after all of them.

    None when `should_stop()` before the last chunk: a question may be as long as a book. Raises ModelError for an id
    outside the vocabulary.
    """
    try:
        # All of it again where a kernel fails: attention may overwrite what was read.
        return with_fallback(lambda: read_prompt(model, state, ids, should_stop=should_stop))
    except StoppedError:
        return None


def read_prompt(
    model: LanguageModel, state: ModelState, ids: NDArray[np.uint32], *, rows: int = 1, should_stop: Stop | None = None
) -> tuple[mx.array, ModelState]:
    """`advance` without its fallback, for `rows` sequences that all read the same ids. Raises StoppedError."""
    if not len(ids):
        raise ValueError("there are no ids to read")
    hidden = mx.zeros(0)
    for start in range(0, len(ids), CHUNK):
        if should_stop is not None and should_stop():
            raise StoppedError
        piece = np.tile(ids[start : start + CHUNK], (rows, 1))
        hidden, state = model(token_ids(piece, model.config.vocab_size), state)
        state.evaluate()
    return hidden, state
