"""Tiny models with random weights in which no parameter is idle."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from longmamba_mlx.models import FAMILIES, LanguageModel
from longmamba_mlx.models.config.parse import ModelConfig

CONFIGS = {
    "mamba": ModelConfig("mamba", 37, 24, 3, 40, 5, 4, dt_rank=3),
    "mamba-biased": ModelConfig(
        "mamba", 37, 24, 2, 48, 4, 3, dt_rank=2, use_bias=True, use_conv_bias=False, tie_embeddings=False,
        norm_eps=1e-3,
    ),
    "falcon": ModelConfig(
        "falcon_mamba", 37, 24, 2, 48, 8, 4, dt_rank=4, mixer_rms_eps=1e-3, tie_embeddings=False
    ),
    "mamba2": ModelConfig("mamba2", 37, 24, 3, 48, 8, 4, n_heads=6, headdim=8),
    "mamba2-groups": ModelConfig(
        "mamba2", 37, 24, 2, 48, 5, 4, n_heads=8, headdim=6, n_groups=4, norm_eps=1e-3, tie_embeddings=False,
        use_bias=True, time_step_limit=(0.01, 0.5),
    ),
    "mamba2-before": ModelConfig(
        "mamba2", 37, 24, 2, 48, 8, 3, n_heads=2, headdim=24, n_groups=2, norm_before_gate=True,
        time_step_limit=(0.0, math.inf),
    ),
}  # fmt: skip


def random_model(name: str, seed: int = 0) -> LanguageModel:
    """The model `name`, plain MLX, with every parameter drawn anew."""
    config = CONFIGS[name]
    model = FAMILIES[config.model_type](config)
    rng = np.random.default_rng(seed)
    drawn = [(path, mx.array(draw(rng, path, old.shape))) for path, old in tree_flatten(model.parameters())]
    model.update(tree_unflatten(drawn))
    mx.eval(model.parameters())
    return model


def draw(rng: np.random.Generator, path: str, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter by its name, of a size at which everything in the model matters."""
    noise = rng.standard_normal(shape)
    if path.endswith(("norm.weight", "norm_f.weight", "D")) or ("norm" in path and path.endswith("weight")):
        noise = 1 + 0.3 * noise
    elif path.endswith(("dt_bias", "dt_proj.bias")):
        noise = noise - 3
    elif path.endswith("weight") and "conv1d" not in path and "embeddings" not in path:
        noise = noise / math.sqrt(shape[-1])
    return noise.astype(np.float32)


def weights64(model: LanguageModel) -> dict[str, np.ndarray]:
    """All parameters by name, in float64."""
    return {path: np.array(array).astype(np.float64) for path, array in tree_flatten(model.parameters())}


def random_ids(length: int, batch: int = 1, seed: int = 1) -> mx.array:
    return mx.array(np.random.default_rng(seed).integers(0, 37, (batch, length)))


def random_thresholds(model: LanguageModel, seed: int = 2) -> list[mx.array | None]:
    """For each layer thresholds that filter about half, some units free; the last layer unfiltered."""
    rng = np.random.default_rng(seed)
    units = model.config.units
    rows: list[mx.array | None] = []
    for _ in range(model.config.n_layer - 1):
        row = (rng.standard_normal(units) - 3).astype(np.float32)
        row[rng.random(units) < 0.3] = -np.inf
        rows.append(mx.array(row))
    return [*rows, None]
