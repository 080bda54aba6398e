"""How much memory a model needs, told before it is needed: weights, state, keys and values, and the work on one chunk.

Compared with measured peaks by tests/reliability/test_memory.py, on a CPU; not measured on a GPU.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from longmamba_mlx.errors import ModelError, UsageError
from longmamba_mlx.ground.sizes import format_size, parse_size
from longmamba_mlx.models.attention import SCORES, Attention
from longmamba_mlx.models.base import Block, LanguageModel, Layer
from longmamba_mlx.models.feedforward import ExpertLinear, QuantizedExpertLinear
from longmamba_mlx.models.quantisation import numbers, to_be_unpacked
from longmamba_mlx.models.state import held_after
from longmamba_mlx.ops import backend
from longmamba_mlx.system import total_bytes

VARIABLE = "LONGMAMBA_MEMORY"
_FLOAT32 = 4
_USABLE = 0.9  # of this machine's memory, if the variable does not say: the rest is the system's
# Arrays as wide as all products of a layer that are alive at once, measured: a layer that runs whole in NumPy reuses
# its own, one that hands arrays over between MLX and NumPy has each of them twice.
_IN_NUMPY, _IN_MLX = 2, 4
_HIDDEN = 4  # arrays of the residual stream
_STATES = 2  # the state before a chunk and the one after it


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes while a document is read: `work` is what a chunk takes beside the rest."""

    weights: int
    states: int
    keys_and_values: int
    work: int

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


def need(model: LanguageModel, tokens: int, chunk: int) -> Need:
    """What reading `tokens` tokens, `chunk` at a time, takes with a model that is loaded or still lazy."""
    state, chunk = model.initial_state(), min(chunk, tokens)
    kept = held_after(tokens, state.window)
    hybrid = model.config.hybrid
    visited = hybrid.experts.per_token if hybrid is not None and hybrid.experts is not None else 1
    work = max(_layer_work(layer, kept, chunk, visited) for layer in model.layers)
    hidden = _HIDDEN * chunk * model.config.d_model * _FLOAT32
    grown = max((layer.attention.nbytes_per_token for layer in state.layers if layer.attention is not None), default=0)
    return Need(
        weights=weights_bytes(model),
        states=_STATES * state.nbytes,
        keys_and_values=state.nbytes_per_token * kept + grown * kept,  # one layer's are copied into more room
        work=work + hidden,
    )


def weights_bytes(model: nn.Module) -> int:
    """Bytes of a model's weights in the form in which this machine runs them, whether they are loaded or not."""
    parameters: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    if not backend.in_numpy():
        return sum(array.nbytes for array in parameters.values())
    unpacked, total = to_be_unpacked(model), 0
    total += max(
        (array.nbytes for array in parameters.values() if array.dtype != mx.float32), default=0
    )  # one at a time
    for path, array in parameters.items():
        layer, _, name = path.rpartition(".")
        wide = _FLOAT32 if mx.issubdtype(array.dtype, mx.floating) else array.itemsize
        if layer not in unpacked or name == "bias":
            total += array.size * wide
        else:  # measured: what was packed is not given back to the system
            total += array.nbytes + (_FLOAT32 * numbers(unpacked[layer]) if name == "weight" else 0)
    return total


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


def _layer_work(layer: Layer, kept: int, chunk: int, visited: int) -> int:
    """Bytes of what a layer computes on a chunk before its output is there; a token visits so many experts."""
    whole = backend.in_numpy() and isinstance(layer, Block) and layer.scan is not None
    width = heads = copied = 0
    for module in layer.modules():
        if isinstance(module, nn.Linear | nn.QuantizedLinear):
            width += module.weight.shape[0]
        elif isinstance(module, ExpertLinear | QuantizedExpertLinear):
            width += visited * module.weight.shape[1]
            copied += module.weight.size if mx.default_device().type == mx.cpu else 0  # MLX turns them around
        elif isinstance(module, Attention):
            heads = max(heads, module.config.n_heads)
    products = (_IN_NUMPY * _tile(layer, chunk) if whole else _IN_MLX * chunk) * width
    scores = 2 * min(heads * chunk * kept, SCORES)
    return _FLOAT32 * (max(products, scores) + copied)


def _tile(layer: Layer, chunk: int) -> int:
    """How many tokens a layer in NumPy works on at once."""
    from longmamba_mlx.models.numpy_layers import tile_of

    return min(chunk, tile_of(layer.scan.config.d_inner if layer.scan is not None else 0))
