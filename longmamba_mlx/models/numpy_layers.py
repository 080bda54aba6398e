"""Give a model the blocks of `numpy_blocks`, for a CPU without Apple's Accelerate.

Blocks become instances of those classes when a model is loaded. Parameters keep their names, values and memory (float32
weights are read through the buffer protocol): change them only before `use_numpy_layers`.
"""

from __future__ import annotations

from types import ModuleType

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from longmamba_mlx.models.base import Block, LanguageModel, Layer
from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.models.families.mamba import MambaMixer
from longmamba_mlx.models.families.mamba2 import Mamba2Mixer
from longmamba_mlx.models.mixer import Mixer
from longmamba_mlx.models.numpy_blocks import NumpyBlock, NumpyMamba2Block, NumpyMambaBlock, Weights
from longmamba_mlx.ops import backend
from longmamba_mlx.ops.cpu.arrays import to_numpy
from longmamba_mlx.ops.cpu.linear import use_numpy_linears

_REUSED_BYTES = 24 << 20

_CLASSES: dict[type[Mixer], type[NumpyBlock]] = {MambaMixer: NumpyMambaBlock, Mamba2Mixer: NumpyMamba2Block}


def use_numpy_layers(model: LanguageModel) -> None:
    """Run `model` through NumPy from now on, with float32 weights. Quantised layers stay as they are."""
    ops = use_numpy_linears_of(model, model.config)
    for block in model.layers:
        _replace(block, model.config, ops)


def use_numpy_layer(layer: Layer, config: ModelConfig) -> None:
    """`use_numpy_layers` for one layer of a model."""
    _replace(layer, config, use_numpy_linears_of(layer, config))


def for_length(model: LanguageModel, tokens: int) -> LanguageModel:
    """The same model, for reading a text of `tokens` tokens: `backend.cpu_ops` has faster operations for long ones."""
    if not any(isinstance(layer, NumpyBlock) for layer in model.layers):
        return model
    ops = backend.cpu_ops(model.config.d_inner, tokens)
    return model.with_layers([layer.through(ops) if isinstance(layer, NumpyBlock) else layer for layer in model.layers])


def use_numpy_linears_of(module: nn.Module, config: ModelConfig) -> ModuleType:
    """Make a module's weights float32 and its linears NumPy's; the operations that fit the width."""
    _widen(module)
    ops = backend.cpu_ops(config.d_inner)
    use_numpy_linears(module, ops)
    _keep_freed_memory()
    return ops


def _replace(block: Layer, config: ModelConfig, ops: ModuleType) -> None:
    numpy_class = _numpy_class(block)
    if numpy_class is not None:
        weights = _weights(block)
        block.__class__ = numpy_class
        block.prepare(weights, config, ops)


def _numpy_class(layer: Layer) -> type[NumpyBlock] | None:
    """The class here for a layer; None for hybrid layers, mixers with options, and quantised weights."""
    if type(layer) is not Block or any(isinstance(part, nn.QuantizedLinear) for part in layer.modules()):
        return None
    found = _CLASSES.get(type(layer.mixer))
    return found if found is not None and layer.mixer.is_plain else None


def _keep_freed_memory() -> None:
    """Make glibc reuse a layer's temporaries instead of giving their pages back to the system each time.

    Freeing one large block raises the size from which it maps and unmaps memory (up to 32 MiB): 75 page
    faults a chunk of 512 tokens instead of 4,940, and 1.7 times the speed for a small model. Elsewhere it
    does nothing.
    """
    np.empty(_REUSED_BYTES, dtype=np.uint8)


def _widen(module: nn.Module) -> None:
    """Load a module's floats as float32, one array after the other: no two are held in both dtypes at once."""
    parameters = dict(tree_flatten(module.parameters()))
    for name in list(parameters):
        array = parameters.pop(name)
        if mx.issubdtype(array.dtype, mx.floating):
            array = array.astype(mx.float32)
            module.update(tree_unflatten([(name, array)]))
        mx.eval(array)


def _weights(block: Layer) -> Weights:
    """Views of a block's parameters, its convolution's taps (k, c) and A, transposed: (n, d) or (h,)."""
    mixer = block.mixer
    named: dict[str, mx.array] = dict(tree_flatten(mixer.parameters()))
    weights = {name: to_numpy(array) for name, array in named.items() if name not in ("A_log", "conv1d.weight")}
    weights["norm.weight"], gated = to_numpy(block.norm.weight), weights.get("norm.weight")
    if gated is not None:
        weights["norm"] = gated
    weights["taps"] = np.ascontiguousarray(to_numpy(named["conv1d.weight"])[:, :, 0].T)
    weights["A"] = np.ascontiguousarray(-np.exp(to_numpy(named["A_log"])).T)
    return weights
