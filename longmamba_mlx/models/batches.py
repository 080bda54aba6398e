"""Join the states of several sequences into one of a batch, and take single ones out of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import mlx.core as mx

from longmamba_mlx.models.state import KeyValues, LayerState, ModelState


def joined(states: Sequence[ModelState]) -> ModelState:
    """One state of a batch, in the order given. All are states of one model after the same number of tokens."""
    if len({state.tokens for state in states}) != 1:
        raise ValueError("states of different lengths cannot be one batch")
    layers = zip(*(state.layers for state in states), strict=True)
    return ModelState(tuple(_merged(layer, _concatenated) for layer in layers), states[0].tokens)


def rows_of(state: ModelState, rows: Sequence[int]) -> ModelState:
    """The state of some sequences of a batch."""
    wanted = mx.array(list(rows), dtype=mx.int32)
    layers = tuple(_merged([layer], lambda arrays: mx.take(arrays[0], wanted, axis=0)) for layer in state.layers)
    return ModelState(layers, state.tokens)


def _concatenated(arrays: Sequence[mx.array]) -> mx.array:
    return mx.concatenate(list(arrays), axis=0)


def _merged(layers: Sequence[LayerState], merge: Callable[[Sequence[mx.array]], mx.array]) -> LayerState:
    """A layer's state with `merge` applied to each of its arrays."""
    parts = {name: merge([layer.arrays()[name] for layer in layers]) for name in layers[0].arrays()}
    keys, values = parts.pop("keys", None), parts.pop("values", None)
    first: KeyValues | None = layers[0].attention
    attention = None if first is None or keys is None or values is None else replace(first, keys=keys, values=values)
    return LayerState(attention=attention, **parts)
