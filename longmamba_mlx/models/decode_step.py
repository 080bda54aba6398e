"""One decode step of a model: on a GPU, as graphs that MLX builds once and replays for each token.

Building a token's graph in Python takes longer than a large GPU takes to run it. Layers without attention have states
of constant shape, so each run of such layers, with the embedding before and the head after it, is one function under
`mx.compile`; a pure Mamba model is one such function. The keys and values of attention grow: its layers are built anew
for each token.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import is_

import mlx.core as mx
from mlx.utils import tree_flatten

from longmamba_mlx.models.base import LanguageModel
from longmamba_mlx.models.state import LayerState, ModelState
from longmamba_mlx.ops import backend

Step = Callable[[mx.array, ModelState], tuple[mx.array, ModelState]]
"""ids (b, 1) and the state before them -> logits (b, 1, vocab) float32 and the state after them."""

_Segment = Callable[[mx.array, Sequence[LayerState]], tuple[mx.array, list[LayerState]]]


def decode_step(model: LanguageModel) -> Step:
    """How a token runs through `model` here: compiled on a GPU, else layer by layer.

    Compiled graphs hold the model's weights. They are kept with the model, and built again once a weight or the
    backend is another one.
    """
    if not backend.compiles_decoding():
        return lambda ids, state: _plain(model, ids, state)
    kept: CompiledStep | None = getattr(model, "_decode_step", None)
    if kept is None or not kept.is_current(model):
        model._decode_step = kept = CompiledStep(model)  # a name with an underscore is no parameter
    return kept


def _plain(model: LanguageModel, ids: mx.array, state: ModelState) -> tuple[mx.array, ModelState]:
    hidden, state = model(ids, state)
    return model.head(hidden), state


class CompiledStep:
    """A decode step of which every run of layers without attention is one compiled graph."""

    def __init__(self, model: LanguageModel) -> None:
        # The model keeps its step, so the step must not keep the model.
        self._model = weakref.ref(model)
        self._weights, self._way = _weights(model), _way()
        self._segments = list(_segments(model, self._model))

    def is_current(self, model: LanguageModel) -> bool:
        """Whether the graphs are those of `model` with its present weights, as ops run now."""
        weights = _weights(model)
        return (
            self._model() is model
            and len(weights) == len(self._weights)
            and all(map(is_, weights, self._weights))
            and self._way == _way()
        )

    def __call__(self, ids: mx.array, state: ModelState) -> tuple[mx.array, ModelState]:
        x, layers = ids, []
        for start, stop, run in self._segments:
            x, after = run(x, state.layers[start:stop])
            layers += after
        return x, ModelState(layers=tuple(layers), tokens=state.tokens + ids.shape[1])


def _way() -> tuple[backend.Backend, mx.Stream]:
    """The backend and the stream that graphs are made for."""
    return backend.current(), mx.default_stream(mx.default_device())


def _weights(model: LanguageModel) -> list[mx.array]:
    return list(dict(tree_flatten(model.parameters())).values())


def _segments(
    model: LanguageModel, reference: weakref.ReferenceType[LanguageModel]
) -> Iterator[tuple[int, int, _Segment]]:
    """First layer, end and function of each run of layers with or without attention."""
    states = model.initial_state().layers
    for grows, indices in groupby(range(len(states)), key=lambda index: states[index].attention is not None):
        start, *others = indices
        stop = start + 1 + len(others)
        run = _segment(reference, start, stop, last=stop == len(states))
        yield start, stop, run if grows else _compiled(run, states[start:stop])


def _segment(reference: weakref.ReferenceType[LanguageModel], start: int, stop: int, *, last: bool) -> _Segment:
    """Layers start:stop on the hidden state; the first segment takes ids, the last one gives logits."""

    def run(x: mx.array, states: Sequence[LayerState]) -> tuple[mx.array, list[LayerState]]:
        model = reference()
        if model is None:
            raise ReferenceError("the model of this decode step is gone")
        hidden, after = x if start else model.embed(x), []
        for index, state in zip(range(start, stop), states, strict=True):
            hidden, state = model.layer(index, hidden, state)
            after.append(state)
        return model.head(hidden) if last else hidden, after

    return run


def _compiled(run: _Segment, examples: Sequence[LayerState]) -> _Segment:
    """`run` as one graph between arrays. `examples` show which arrays the states consist of."""
    names = [tuple(state.arrays()) for state in examples]

    def joined(arrays: Iterable[mx.array]) -> list[LayerState]:
        left = iter(arrays)
        # zip asks `parts` first, and so takes no array too many.
        parts_of: list[dict[str, mx.array]] = [dict(zip(parts, left, strict=False)) for parts in names]
        return [LayerState(**parts) for parts in parts_of]  # type: ignore[arg-type]  # never "attention"

    def split(states: Iterable[LayerState]) -> list[mx.array]:
        return [getattr(state, name) for state, parts in zip(states, names, strict=True) for name in parts]

    def on_arrays(x: mx.array, arrays: list[mx.array]) -> list[mx.array]:
        y, after = run(x, joined(arrays))
        return [y, *split(after)]

    graph = mx.compile(on_arrays)

    def on_states(x: mx.array, states: Sequence[LayerState]) -> tuple[mx.array, list[LayerState]]:
        y, *after = graph(x, split(states))
        return y, joined(after)

    return on_states
