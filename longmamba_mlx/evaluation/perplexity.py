"""Perplexity over long windows of whole texts, after the PG-19 protocol of DeciMamba and LongMamba.

About ten evenly spaced windows a book; the likelihood of the last 100 tokens of each, and of the whole window. Two
things differ, so that lengths can be compared: books shorter than the longest window are left out at every length, and
the windows of all lengths end at the same places, so that always the same tokens are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import UsageError
from longmamba_mlx.evaluation.likelihood import Ids, continued_nll, nll
from longmamba_mlx.evaluation.measure import PlannedDocument, Reader
from longmamba_mlx.evaluation.samples import Cell, Sample
from longmamba_mlx.filtering import FilterPlan
from longmamba_mlx.inference.chunkwise import chunks
from longmamba_mlx.inference.prefill import prefill
from longmamba_mlx.session.model import Model

SCORED = 100
_CHUNK = 512


def perplexity_documents(
    books: Mapping[str, Ids], lengths: Sequence[int], *, samples: int
) -> tuple[list[PlannedDocument[Ids]], list[str]]:
    """The windows, and the names of books that are too short and left out.

    books: name -> token ids. `samples` windows a length, rounded up to as many from every book. Raises UsageError for
    lengths without room for the scored tokens, and where no book is long enough.
    """
    if min(lengths) <= SCORED:
        raise UsageError(f"Windows of {min(lengths)} tokens are too short.", hint=f"More than {SCORED} tokens.")
    longest = max(lengths)
    fit = {name: ids for name, ids in books.items() if len(ids) >= longest}
    if not fit:
        most = max((len(ids) for ids in books.values()), default=0)
        raise UsageError(
            f"No text has {longest:,} tokens (the longest has {most:,})", hint="Shorter --lengths, or longer texts."
        )
    each = -(-samples // len(fit))
    documents = [
        PlannedDocument(Cell("ppl", length), place * each + number, 1, _window(ids, end, length))
        for length in lengths
        for place, ids in enumerate(fit.values())
        for number, end in enumerate(window_ends(len(ids), longest, each))
    ]
    return documents, [name for name in books if name not in fit]


def window_ends(tokens: int, longest: int, count: int) -> list[int]:
    """`count` evenly spaced ends of windows of at most `longest` in a text of `tokens`; the last at its end."""
    if count == 1:
        return [tokens]
    return [round(longest + (tokens - longest) * index / (count - 1)) for index in range(count)]


def _window(ids: Ids, end: int, length: int) -> Callable[[], Ids]:
    return lambda: ids[end - length : end]


def take_window(reader: Reader, planned: PlannedDocument[Ids], window: Ids) -> list[Sample]:
    """The mean likelihood of the last tokens of a window and, where every token was read, of all of them."""
    model = reader.model
    ids = window[-model.training_length :] if reader.last else window
    plan = model.plan(len(ids), ids)
    drops = plan is not None and plan.drops_tokens
    scores = _after_decimation(model, ids) if drops else token_nll(model, ids, plan)
    whole = float(scores.mean()) if len(scores) == len(window) - 1 else None
    last = float(scores[-SCORED:].mean())
    return [
        Sample(
            planned.cell, reader.name, planned.document, 0, score=-last, nll=last, nll_whole=whole, tokens=len(window)
        )
    ]


def token_nll(model: Model, ids: Ids, plan: FilterPlan | None) -> NDArray[np.float32]:
    """Negative log-likelihood (S - 1,) of every token of ids (S,) but the first, all of them filtered as planned.

    Never holds more than a chunk's logits. A plan that waits for the document is fixed by a first reading.
    """
    if plan is not None and plan.needs_document:
        plan = prefill(model.network, ids, plan, logits="none").plan
    network = model.network
    scores: list[NDArray[np.float32]] = []
    for chunk in chunks(network, ids, plan, _CHUNK, network.initial_state(), logits="all"):
        if chunk.first == 0:  # also where a kernel failed and everything is read again
            scores.clear()
        following = ids[chunk.first + 1 : chunk.state.tokens + 1]
        if chunk.logits is not None and len(following):
            scores.append(nll(mx.array(chunk.logits[: len(following)]), following))
        del chunk  # attention overwrites the state that it holds
    return np.concatenate(scores)


def _after_decimation(model: Model, ids: Ids) -> NDArray[np.float32]:
    """The last tokens' scores where the tokens before them were decimated; the scored ones never are."""
    before, last = ids[: -SCORED - 1], ids[-SCORED - 1 :]
    state = prefill(model.network, before, model.plan(len(before), before), logits="none").state
    return continued_nll(model.network, state, last[:1], last[1:])
