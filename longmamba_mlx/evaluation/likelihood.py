"""Negative log-likelihoods of given tokens, in nats."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.ops.fallback import with_fallback
from longmamba_mlx.ops.token_ids import token_ids
from longmamba_mlx.ops.values import values

Ids = NDArray[np.uint32]


def nll(logits: mx.array, wanted: Ids) -> NDArray[np.float32]:
    """-log p (n,) of ids `wanted` (n,), each from its row of logits (n, vocab). Raises ModelError for other ids."""
    chosen = mx.take_along_axis(logits, token_ids(wanted, logits.shape[1])[:, None], axis=1)[:, 0]
    return values((mx.logsumexp(logits, axis=1) - chosen).astype(mx.float32))


def continued_nll(network: LanguageModel, state: ModelState, prompt: Ids, wanted: Ids) -> NDArray[np.float32]:
    """-log p (n,) of ids `wanted` (n,) after `state` and ids `prompt` (m,), m > 0. Raises ModelError for other ids."""
    ids = token_ids(np.concatenate([prompt, wanted[:-1]])[None], network.config.vocab_size)

    def work() -> NDArray[np.float32]:
        hidden, _ = network(ids, state)
        return nll(network.head(hidden[:, len(prompt) - 1 :])[0], wanted)

    return with_fallback(work)
