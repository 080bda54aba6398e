"""How much memory a model needs, told before it is needed: weights, state, keys and values, and the work on one chunk.

Compared with measured peaks by tests/reliability/test_memory.py, on a CPU; not measured on a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from longmamba_mlx.errors import ModelError, UsageError
from longmamba_mlx.ground.sizes import format_size, parse_size
from longmamba_mlx.models.attention import SCORES, Attention, keeps_scores
from longmamba_mlx.models.base import Block, LanguageModel, Layer
from longmamba_mlx.models.feedforward import ExpertLinear, QuantizedExpertLinear
from longmamba_mlx.models.quantisation import numbers, to_be_unpacked
from longmamba_mlx.models.state import held_after
from longmamba_mlx.ops import backend
from longmamba_mlx.system import total_bytes

VARIABLE = "LONGMAMBA_MEMORY"
_FLOAT32 = 4
_USABLE = 0.9  # of this machine's memory, if the variable does not say: the rest is the system's
_KEPT = 32 << 20  # what MLX keeps of freed arrays on a CPU, each until one of nearly its size is wanted
# Arrays as wide as all products of a layer that are alive at once, measured: a layer that runs whole in NumPy reuses
# its own; one whose products alone are NumPy's computes each when it is wanted; MLX alone is asked for many at once.
_WHOLE_IN_NUMPY, _HANDED_OVER, _IN_MLX = 2, 1, 4
_MADE_OF = 2  # a freed product, and as much made of it: parts, activations, gated values
_HIDDEN = 4  # arrays of the residual stream
_STATES = 2  # the state before a chunk and the one after it


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes while a document is read: `loading` is what the weights take beside themselves while they are loaded,
    `work` what a chunk takes beside the rest, `kept` what is freed and not given back to the system."""

    weights: int
    loading: int
    states: int
    keys_and_values: int
    work: int
    kept: int

    @property
    def total(self) -> int:
        return self.weights + max(self.loading, self.states + self.keys_and_values + self.work + self.kept)


@dataclass(frozen=True, slots=True)
class _Weights:
    """Bytes of a model's weights, of the largest array that is converted into one of them, and of those arrays of which
    no later one has the size."""

    held: int
    largest: int = 0
    freed: int = 0


@dataclass(frozen=True, slots=True)
class _Reading:
    """How a document is read: its tokens, those of a chunk, and how many of them attention remembers (None: all)."""

    tokens: int
    chunk: int
    window: int | None

    def held(self, tokens: int) -> int:
        """How many of `tokens` tokens are remembered."""
        return held_after(tokens, self.window)

    def seen(self, end: int) -> int:
        """To how many tokens the chunk attends that ends at this token."""
        return min(end, self.held(max(end - self.chunk, 0)) + self.chunk)


def need(model: LanguageModel, tokens: int, chunk: int) -> Need:
    """What reading `tokens` tokens, `chunk` at a time, takes with a model that is loaded or still lazy."""
    state, weights = model.initial_state(), _weights(model)
    reading = _Reading(tokens, min(chunk, tokens), state.window)
    layers = [_LayerWork.of(layer, model, reading.chunk) for layer in model.layers]
    hidden = _HIDDEN * reading.chunk * model.config.d_model * _FLOAT32
    before, after = (state.keys_and_values(end) for end in (tokens - reading.chunk, tokens))
    # Longer keys and values are new arrays. Where the layers compute at once, the state before still holds the old ones
    # of all of them; else those of a layer go with it.
    old = sum(before) if backend.in_numpy() else max(after, default=0)
    freed = weights.freed + _freed(layers, reading, state.nbytes_per_token)
    return Need(
        weights=weights.held,
        loading=weights.largest,
        states=_STATES * state.nbytes,
        keys_and_values=sum(after) + old,
        work=hidden + max(layer.bytes(reading) for layer in layers),
        kept=min(_KEPT, freed) if mx.default_device().type == mx.cpu else 0,
    )


def weights_bytes(model: nn.Module) -> int:
    """Bytes that loading a model takes: its weights in the form in which this machine runs them, and the largest array
    that is brought into this form."""
    weights = _weights(model)
    return weights.held + weights.largest


def _weights(model: nn.Module) -> _Weights:
    parameters: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    if not backend.in_numpy():
        return _Weights(sum(array.nbytes for array in parameters.values()))
    unpacked = to_be_unpacked(model)
    held = packed = 0
    narrow: set[int] = set()  # sizes: the next layer's array takes the room of the one before
    for path, array in parameters.items():
        layer, _, name = path.rpartition(".")
        if layer in unpacked and name != "bias":
            packed += array.nbytes
            if name == "weight":
                held += _FLOAT32 * numbers(unpacked[layer])
                narrow.add(unpacked[layer].scales.itemsize * numbers(unpacked[layer]))
        else:
            wide = mx.issubdtype(array.dtype, mx.floating)
            held += array.size * (_FLOAT32 if wide else array.itemsize)
            if wide and array.dtype != mx.float32:
                narrow.add(array.nbytes)
    return _Weights(held, max(narrow, default=0), packed + sum(narrow))


@dataclass(frozen=True, slots=True)
class _LayerWork:
    """Bytes of what a layer computes on a chunk: all its products together, their different sizes, what NumPy holds
    before it is handed over to MLX, and for attention its own products and heads."""

    products: int
    sizes: frozenset[int] = frozenset()
    in_numpy: int = 0
    attended: int = 0
    heads: int = 0
    head_dim: int = 0

    @classmethod
    def of(cls, layer: Layer, model: LanguageModel, chunk: int) -> _LayerWork:
        """That of a layer on `chunk` tokens."""
        hybrid = model.config.hybrid
        visited = hybrid.experts.per_token if hybrid is not None and hybrid.experts is not None else 1
        widths, attended, heads, head_dim, copied = [], 0, 0, 0, 0
        for module in layer.modules():
            if isinstance(module, nn.Linear | nn.QuantizedLinear):
                widths.append(module.weight.shape[0])
            elif isinstance(module, ExpertLinear | QuantizedExpertLinear):
                widths.append(visited * module.weight.shape[1])
                if isinstance(module, ExpertLinear) and mx.default_device().type == mx.cpu and not backend.in_numpy():
                    copied += _FLOAT32 * module.weight.size if module.weight.dtype != mx.float32 else 0
            elif isinstance(module, Attention):
                config = module.config
                heads, head_dim = max(heads, config.n_heads), config.head_dim
                attended += (2 * config.n_heads + 2 * config.n_kv_heads) * head_dim  # queries, keys, values, output
        if backend.in_numpy() and isinstance(layer, Block) and layer.scan is not None:
            from longmamba_mlx.models.numpy_blocks import TILE

            return cls(_FLOAT32 * _WHOLE_IN_NUMPY * min(chunk, TILE) * sum(widths))
        each = [_FLOAT32 * chunk * width for width in widths]
        times = _HANDED_OVER if backend.in_numpy() else _IN_MLX
        in_numpy = max(each, default=0) if backend.in_numpy() else 0
        products = times * sum(each) + copied
        return cls(products, frozenset(each), in_numpy, _FLOAT32 * chunk * attended, heads, head_dim)

    def scores(self, chunk: int, seen: int) -> int:
        """Bytes of the attention scores of a chunk that sees so many tokens, where they are written out."""
        return 0 if keeps_scores(self.head_dim) else _FLOAT32 * min(self.heads * chunk * seen, SCORES)

    def bytes(self, reading: _Reading) -> int:
        """The most that is alive at once."""
        seen = reading.seen(reading.tokens)
        mask = reading.chunk * seen
        attention = _MADE_OF * self.attended + self.scores(reading.chunk, seen) + mask if self.heads else 0
        return max(self.products, attention) + self.in_numpy


def _freed(layers: Sequence[_LayerWork], reading: _Reading, per_token: int) -> int:
    """Bytes of freed arrays whose size no later one of a reading has; no further than MLX keeps them."""
    freed = _MADE_OF * sum(frozenset().union(*(layer.sizes for layer in layers)))
    attending, before = [layer for layer in layers if layer.heads], 0
    for end in range(reading.chunk, reading.tokens, reading.chunk):  # all chunks but the last one
        seen = reading.seen(end)
        if freed >= _KEPT or seen == before or not attending:
            break
        freed += sum({layer.scores(reading.chunk, seen) for layer in attending}) + per_token * before
        before = seen
    return freed


def usable_bytes() -> int:
    """What LONGMAMBA_MEMORY says may be used ("24GB"), else nine tenths of this machine's memory. Raises UsageError."""
    said = os.environ.get(VARIABLE)
    if not said:
        return int(_USABLE * total_bytes())
    try:
        return parse_size(said)
    except ValueError:
        raise UsageError(f"Invalid {VARIABLE} {said[:40]!a}.", hint="For example 24GB.") from None


def require(needed: int, what: str, way_out: str) -> None:
    """Raise ModelError where `needed` bytes are more than may be used."""
    usable = usable_bytes()
    if needed > usable:
        raise ModelError(
            f"{what} needs about {format_size(needed)} of memory, and {format_size(usable)} may be used.",
            hint=f"{way_out} (or let it use more: {VARIABLE}={-(-needed // 10**9)}GB)",
        )
