"""Messages between ranks: a layer's state as bytes, and after the last layer the kept counts."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from longmamba_mlx.inference.kept_share import Kept
from longmamba_mlx.models.state import LayerState, ModelState

CELLS = 1 << 14
"""Kept shares of one span in a message; longer spans send means, so that no message grows with the document."""


@dataclass(frozen=True)
class Layout:
    """Where the arrays of all layers' states lie in messages, for a model with this initial state."""

    like: ModelState

    def shapes(self, index: int, tokens: int) -> dict[str, tuple[tuple[int, ...], mx.Dtype]]:
        """Shape and dtype of each part of layer `index` after `tokens` tokens."""
        found, prefix = self.like.shapes(tokens), f"layers.{index}."
        parts = self.like.layers[index].arrays()
        return {name: (found[prefix + name], array.dtype) for name, array in parts.items()}

    def nbytes(self, index: int, tokens: int) -> int:
        """The size of layer `index`'s state after `tokens` tokens."""
        return sum(dtype.size * int(np.prod(shape)) for shape, dtype in self.shapes(index, tokens).values())

    def pack(self, state: LayerState) -> mx.array:
        """A layer's state as bytes (n,)."""
        flat = [array.reshape(-1).view(mx.uint8) for array in state.arrays().values() if array.size]
        return mx.concatenate(flat) if flat else _nothing()

    def unpack(self, index: int, tokens: int, buffer: mx.array) -> LayerState:
        """The inverse of `pack`: layer `index`'s state after `tokens` tokens."""
        arrays, at, depth = {}, 0, len(self.like.layers)
        for name, (shape, dtype) in self.shapes(index, tokens).items():
            end = at + dtype.size * int(np.prod(shape))
            array = buffer[at:end].view(dtype) if end > at else mx.zeros((0,), dtype=dtype)
            arrays[f"layers.{index}.{name}"] = array.reshape(shape)
            at = end
        mx.eval(*arrays.values())
        if not arrays:  # an MLP on its own
            return LayerState()
        return ModelState.from_arrays(arrays, tokens, depth, self.like.window, self.like.own_windows).layers[index]


def _nothing() -> mx.array:
    return mx.zeros((0,), dtype=mx.uint8)


def to_cells(kept: Kept) -> Kept:
    """The kept shares of a span as CELLS bytes: each token's, or means over equally many tokens."""
    each = tokens_in_cell(len(kept))
    whole = np.zeros(-(-len(kept) // each) * each, np.uint32)
    whole[: len(kept)] = kept
    count = np.full(len(whole) // each, each, np.uint32)
    if len(kept) % each:
        count[-1] = len(kept) % each
    cells = np.zeros(CELLS, np.uint8)
    cells[: len(count)] = whole.reshape(-1, each).sum(axis=1) // count
    return cells


def from_cells(cells: Kept, tokens: int) -> Kept:
    """The inverse of `to_cells` for a span of `tokens` tokens, exact for at most CELLS of them."""
    return np.repeat(cells, tokens_in_cell(tokens))[:tokens]


def tokens_in_cell(tokens: int) -> int:
    """How many tokens of a span of `tokens` share one cell."""
    return max(1, -(-tokens // CELLS))
