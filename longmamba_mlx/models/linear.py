"""Linear layers for a GPU whose call is one node of MLX's graph, where nn.Linear's is four.

Building the graph of a token takes Python longer than a large GPU takes to run it, and a token passes two to four
linear layers in each Mamba layer.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn


class BatchedLinear(nn.Linear):
    """nn.Linear with the same parameters and results; one sequence (1, l, i) is multiplied by a view (1, i, o) of the
    weight, which needs no transposing and no flattening of the sequence."""

    _view: mx.array
    _view_of: mx.array

    def prepare(self) -> None:
        """Make the view of the present weight."""
        self._view_of, self._view = self.weight, mx.expand_dims(self.weight.T, 0)
        mx.eval(self._view)

    def __call__(self, x: mx.array) -> mx.array:
        usual = x.ndim != 3 or x.shape[0] != 1 or self._view_of is not self.weight  # a weight may be replaced
        weight = self.weight.T if usual else self._view
        y: mx.array = mx.addmm(self.bias, x, weight) if "bias" in self else x @ weight
        return y


def use_batched_linears(model: nn.Module) -> None:
    """Turn every plain nn.Linear of `model` into a BatchedLinear, in place."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = BatchedLinear
            module.prepare()
