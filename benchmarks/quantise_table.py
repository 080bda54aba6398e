"""The tables of docs/models.md: what quantising changes in the built-in models and in random ones of their shape.

python benchmarks/quantise_table.py
"""

from __future__ import annotations

from collections.abc import Mapping

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from longmamba_mlx.builtin import BUILT_IN, sample_document
from longmamba_mlx.conversion.effect import Effect, measure_effect
from longmamba_mlx.conversion.recipe import format_for, recipe_for
from longmamba_mlx.models import FAMILIES, LanguageModel
from longmamba_mlx.models.config.parse import ModelConfig, parse_config, read_json
from longmamba_mlx.models.quantisation import LayerFormat, Quantisation
from longmamba_mlx.models.weight_files import weight_files
from longmamba_mlx.models.weights import read_weights
from longmamba_mlx.registry.resolve import resolve
from longmamba_mlx.tokenization.tokenizer import Tokenizer

FORMATS = ((8, 64, "affine"), (6, 64, "affine"), (5, 64, "affine"), (4, 32, "affine"), (4, 64, "affine"),
           (4, 128, "affine"), (3, 64, "affine"), (2, 64, "affine"), (4, 32, "mxfp4"))  # fmt: skip


def main() -> None:
    for name in BUILT_IN:
        raw = read_json(resolve(name) / "config.json")
        config = parse_config(raw)
        ids = Tokenizer.from_folder(resolve(name)).encode(sample_document().read_text(encoding="utf-8"))
        trained = read_weights(weight_files(resolve(name)))
        block = raw.get("longmamba")
        settings = block if isinstance(block, Mapping) else {}
        for kind, weights in (("trained", trained), ("random", redrawn(trained))):
            for bits, group, mode in FORMATS:
                form = format_for(bits, group, mode)
                show(f"{name} {kind} {mode} {bits} bit, group {group}", measured(config, weights, form, ids, settings))
            even = measured(config, weights, LayerFormat(4, 64), ids, settings, even=True)
            show(f"{name} {kind} 4 bit in every layer", even)


def redrawn(weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """Normal matrices of unit gain, and step sizes spread evenly in log from .001 to .1."""
    rng = np.random.default_rng(0)
    drawn = dict(weights)
    for name, array in weights.items():
        if array.ndim == 2 and not name.endswith("A_log"):
            drawn[name] = mx.array(rng.normal(size=array.shape).astype(np.float32) / np.sqrt(array.shape[1]))
        elif name.endswith(("dt_bias", "dt_proj.bias")):
            steps = np.exp(rng.uniform(np.log(1e-3), np.log(0.1), array.shape))
            drawn[name] = mx.array(np.log(np.expm1(steps)).astype(np.float32))
    return drawn


def measured(
    config: ModelConfig,
    weights: Mapping[str, mx.array],
    form: LayerFormat,
    ids: np.ndarray,
    settings: Mapping[str, object],
    *,
    even: bool = False,
) -> Effect | None:
    """The effect of the recipe, or (`even`) of the format in every layer it fits."""

    def quantised() -> LanguageModel:
        model = model_of(config, weights)
        quantisation = Quantisation(form, unfitting(model, form)) if even else recipe_for(model, form)
        quantisation.apply(model)
        return model

    return measure_effect(lambda: model_of(config, weights), quantised, ids, settings)


def unfitting(model: nn.Module, form: LayerFormat) -> dict[str, None]:
    modules = tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module)
    return {path: None for path, module in modules if "weight" in module and module.weight.shape[-1] % form.group_size}


def model_of(config: ModelConfig, weights: Mapping[str, mx.array]) -> LanguageModel:
    model = FAMILIES[config.model_type](config)
    model.load_weights(list(weights.items()))
    return model


def show(label: str, effect: Effect | None) -> None:
    print(f"{label}: {effect}", flush=True)


if __name__ == "__main__":
    main()
