"""Run a model of which only one layer is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from numpy.typing import NDArray

from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.models.loading import make_layer_ready, make_table_ready
from longmamba_mlx.models.quantisation import unpacked_weight
from longmamba_mlx.models.state import LayerState, ModelState

_VOCABULARY_SLICE = 8192  # rows of the head's table that are worked on at once


class LayerByLayer:
    """The calls of a `LanguageModel`, for a caller that finishes one layer before the next.

    `build` makes the model with lazy tensors. It is called again for each layer, so that the tensors of the previous
    layer are released.
    """

    def __init__(self, build: Callable[[], LanguageModel]) -> None:
        self._build = build
        self._index = -1
        self._model = build()
        self.config: ModelConfig = self._model.config
        self.size = sum(array.size for array in dict(tree_flatten(self._model.parameters())).values())
        """How many numbers the weights hold."""

    def embed(self, ids: mx.array) -> mx.array:
        """Token ids (b, l) -> hidden (b, l, width) float32, evaluated."""
        hidden = self._model.embed(ids)
        mx.eval(hidden)
        return hidden

    def has_scan(self, index: int) -> bool:
        """Whether layer `index` has a Mamba mixer."""
        return self.at(index).has_scan(index)

    def initial_state(self, batch: int = 1) -> ModelState:
        """The state before the first token; right for the layer that was asked for last."""
        return self._model.initial_state(batch)

    def layer(self, index: int, hidden: mx.array, state: LayerState) -> Any:
        """Layer `index` over hidden (b, l, width): (hidden, LayerState)."""
        return self.at(index).layer(index, hidden, state)

    def raw_step(self, index: int, hidden: mx.array, state: LayerState) -> Any:
        """The raw step sizes of layer `index`, and the state after them."""
        return self.at(index).raw_step(index, hidden, state)

    def decay_rates(self, index: int) -> NDArray[np.float32]:
        """|A| of layer `index`."""
        return self.at(index).decay_rates(index)

    def token_rates(self, index: int, hidden: mx.array) -> Any:
        """|A| of layer `index` for each token if it depends on the token, else None."""
        return self.at(index).token_rates(index, hidden)

    def logits(self, hidden: mx.array) -> Iterator[mx.array]:
        """hidden (b, l, width) -> the logits (b, l, part) of a part of the vocabulary after the other."""
        model = self._build()
        table = model.embeddings if model.config.tie_embeddings else model.lm_head
        for start in range(0, model.config.vocab_size, _VOCABULARY_SLICE):
            _use_table(model, unpacked_weight(table, slice(start, start + _VOCABULARY_SLICE)))
            yield model.head(hidden)

    def at(self, index: int) -> LanguageModel:
        """The model with layer `index` in memory, in the form that runs fastest, and no other."""
        if index != self._index:
            del self._model
            self._model, self._index = self._build(), index
            make_layer_ready(self._model, index)
        return self._model


def _use_table(model: LanguageModel, weight: mx.array) -> None:
    """Let the head multiply by `weight` (part, width) alone."""
    if model.config.tie_embeddings:
        table: nn.Module = nn.Embedding(1, 1)
        model[model.names.trunk][model.names.embeddings] = table
    else:
        table = model.lm_head = nn.Linear(1, 1, bias=False)
    table.weight = weight
    make_table_ready(table, model.config)


def largest_layer(model: LanguageModel) -> int:
    """The numbers that the largest layer of a plain model holds."""
    layers = [dict(tree_flatten(layer.parameters())) for layer in model.layers]
    return max(int(sum(array.size for array in parameters.values())) for parameters in layers)
