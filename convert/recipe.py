"""Which layer is quantised to how many bits: few for the bulk, eight for step sizes, embeddings, head and routers."""

from __future__ import annotations

import mlx.nn as nn
from mlx.utils import tree_flatten

from longmamba_mlx.errors import ModelError
from longmamba_mlx.models.quantisation import (
    FIXED_MODES,
    GROUP_SIZES,
    PRECISE_BITS,
    LayerFormat,
    Quantisation,
    checked_format,
    step_layers,
)

_ROUTERS = (".router", ".router.layer", ".gate")


def format_for(bits: int | None, group_size: int | None, mode: str) -> LayerFormat:
    """The format of `--q-bits`, `--q-group-size` and `--q-mode`, with mlx-lm's defaults. Raises ModelError for one that
    MLX does not have."""
    default_bits, default_group = FIXED_MODES.get(mode, (4, 64))
    return checked_format(bits or default_bits, group_size or default_group, mode)


def recipe_for(model: nn.Module, default: LayerFormat) -> Quantisation:
    """`default` for the model's matrices, with these exceptions.

    8 bit: x_proj and dt_proj of Mamba-1 and all of Mamba-2's in_proj (its last rows are the step sizes, and
    the filter compares step sizes), embeddings, head and the routers of experts. Not at all: layers whose
    width no group size divides. Raises ModelError where that leaves nothing.
    """
    modules = dict(tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module))
    steps = set(step_layers(model))
    layers: dict[str, LayerFormat | None] = {}
    count = 0
    for path, module in modules.items():
        if not hasattr(module, "to_quantized"):
            continue
        count += 1
        width = module.weight.shape[-1]
        form = _precise(width, default) if path in steps or _is_precise(path, module) else default
        if form is not None and width % form.group_size:
            form = None
        if form != default:
            layers[path] = form
    if all(form is None for form in layers.values()) and len(layers) == count:
        raise ModelError(
            f"Nothing to quantise: no layer's width is a multiple of {default.group_size}.",
            hint="Give a smaller --q-group-size, or leave out -q",
        )
    return Quantisation(default, layers)


def _is_precise(path: str, module: nn.Module) -> bool:
    return path == "lm_head" or isinstance(module, nn.Embedding) or path.endswith(_ROUTERS)


def _precise(width: int, default: LayerFormat) -> LayerFormat | None:
    """8 bits, in groups of the requested size or the next smaller one that divides the width."""
    sizes = [size for size in reversed(GROUP_SIZES) if size <= max(default.group_size, GROUP_SIZES[0])]
    fitting = [size for size in sizes if width % size == 0]
    return LayerFormat(PRECISE_BITS, fitting[0]) if fitting else None
