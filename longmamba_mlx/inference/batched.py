"""Ask several states the same question at once: how sure each is of its answer, and what each would write."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.inference.decode import not_finite, read_prompt
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.batches import rows_of
from longmamba_mlx.models.decode_step import decode_step
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.ops.fallback import with_fallback
from longmamba_mlx.ops.values import values


@dataclass(frozen=True, slots=True)
class Asked:
    """States that have read a prompt. logits (b, vocab) of the token that follows, and for each state the entropy of
    that token in nats and the probability of the likeliest one, (b,) each."""

    logits: mx.array
    state: ModelState
    entropy: NDArray[np.float32]
    probability: NDArray[np.float32]


def ask_all(model: LanguageModel, state: ModelState, rows: int, prompt: NDArray[np.uint32]) -> Asked:
    """Read prompt (n,), n > 0, on top of a state of `rows` sequences.

    Raises NumericError for logits that are not finite, ModelError for a prompt outside the vocabulary.
    """
    return with_fallback(partial(_ask_all, model, state, rows, prompt))


def _ask_all(model: LanguageModel, state: ModelState, rows: int, prompt: NDArray[np.uint32]) -> Asked:
    hidden, state = read_prompt(model, state, prompt, rows=rows)
    logits = model.head(hidden[:, -1:])[:, 0]
    logs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    entropy, likeliest = -(mx.exp(logs) * logs).sum(axis=-1), mx.exp(logs.max(axis=-1))
    mx.eval(logits, entropy, likeliest)
    if not bool(mx.isfinite(entropy).all()):
        raise not_finite()
    return Asked(logits, state, np.array(entropy, np.float32), np.array(likeliest, np.float32))


def write_all(
    model: LanguageModel,
    asked: Asked,
    rows: Sequence[int],
    *,
    max_tokens: int,
    stop_ids: Collection[int] = (),
    is_over: Callable[[list[int]], bool] = lambda ids: False,
) -> list[list[int]]:
    """The likeliest ids that follow in some of the states, each up to an id of `stop_ids`, or until `is_over(ids)`.

    The batch is halved whenever half of the answers have ended: a GPU compiles its decode step for each size.
    """
    return with_fallback(partial(_write_all, model, asked, rows, max_tokens, stop_ids, is_over))


def _write_all(
    model: LanguageModel,
    asked: Asked,
    rows: Sequence[int],
    max_tokens: int,
    stop_ids: Collection[int],
    is_over: Callable[[list[int]], bool],
) -> list[list[int]]:
    step = decode_step(model)
    written: list[list[int]] = [[] for _ in rows]
    places = list(range(len(rows)))  # the answer that each sequence of the batch writes
    logits, state = mx.take(asked.logits, mx.array(list(rows)), axis=0), rows_of(asked.state, rows)
    open_answers = set(places)
    for _ in range(max_tokens):
        chosen = mx.argmax(logits, axis=-1)
        for place, token in zip(places, values(chosen).tolist(), strict=True):
            if place in open_answers:
                if token in stop_ids:
                    open_answers.discard(place)
                    continue
                written[place].append(token)
                if is_over(written[place]) or len(written[place]) == max_tokens:
                    open_answers.discard(place)
        if not open_answers:
            break
        if 2 * len(open_answers) <= len(places):
            kept = [index for index, place in enumerate(places) if place in open_answers]
            kept += [index for index in range(len(places)) if index not in kept][: len(places) // 2 - len(kept)]
            places = [places[index] for index in kept]
            chosen, state = mx.take(chosen, mx.array(kept), axis=0), rows_of(state, kept)
        logits, state = step(chosen[:, None], state)
        logits = logits[:, -1]
    return written
