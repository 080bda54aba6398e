"""Random checkpoints with the shapes of the public 130m models, in the layout that every engine loads.

Speed does not depend on the values of weights, so nothing is downloaded. The initialisation is the one Mamba models
start from, so that no state overflows and all engines can be checked against each other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.paths import private_folder
from longmamba_mlx.storage.atomic import write_text
from longmamba_mlx.storage.checked_safetensors import save_arrays

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a random checkpoint."""

    family: str  # "mamba" or "mamba2"
    d_model: int = 768
    n_layer: int = 24
    vocab_size: int = 50_280
    d_state: int = 16
    d_conv: int = 4
    headdim: int = 64

    @property
    def d_inner(self) -> int:
        return 2 * self.d_model

    @property
    def dt_rank(self) -> int:
        return -(-self.d_model // 16)

    @property
    def n_heads(self) -> int:
        return self.d_inner // self.headdim

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """(out, in) of one layer's matrix products."""
        out = (self.d_model, self.d_inner)
        if self.family == "mamba2":
            return ((2 * self.d_inner + 2 * self.d_state + self.n_heads, self.d_model), out)
        low = (self.dt_rank + 2 * self.d_state, self.d_inner)
        return ((2 * self.d_inner, self.d_model), low, (self.d_inner, self.dt_rank), out)

    def config(self) -> dict[str, object]:
        """config.json as transformers writes it, with the keys mlx-lm also wants."""
        common: dict[str, object] = {
            "model_type": self.family,
            "architectures": ["MambaForCausalLM" if self.family == "mamba" else "Mamba2ForCausalLM"],
            "vocab_size": self.vocab_size, "hidden_size": self.d_model, "intermediate_size": self.d_inner,
            "num_hidden_layers": self.n_layer, "state_size": self.d_state, "conv_kernel": self.d_conv, "expand": 2,
            "hidden_act": "silu", "layer_norm_epsilon": 1e-5, "use_bias": False, "use_conv_bias": True,
            "tie_word_embeddings": True, "residual_in_fp32": True, "dtype": "float32",
        }  # fmt: skip
        if self.family == "mamba":
            return common | {"time_step_rank": self.dt_rank}
        return common | {"num_heads": self.n_heads, "head_dim": self.headdim, "n_groups": 1, "chunk_size": 256,
                         "time_step_rank": self.dt_rank, "rms_norm": True, "norm_before_gate": False,
                         "time_step_limit": [0.0, {"__float__": "Infinity"}]}  # fmt: skip


SHAPES = {
    "mamba": Shape("mamba"),
    "mamba2": Shape("mamba2", vocab_size=50_288, d_state=128),
}


def make(shape: Shape, folder: Path) -> Path:
    """Write the checkpoint of `shape` into `folder`, unless it is there. Returns the folder."""
    if (folder / "config.json").exists():
        return folder
    private_folder(folder)
    save_arrays(folder / "model.safetensors", dict(weights(shape)), {"format": "pt"})
    text = json.dumps(shape.config(), indent=1)
    write_text(folder / "config.json", text)
    return folder


def weights(shape: Shape) -> Weights:
    """Tensors under transformers' names, float32."""
    rng = np.random.default_rng(0)

    def normal(*size: int, scale: float) -> NDArray[np.float32]:
        return rng.standard_normal(size, dtype=np.float32) * np.float32(scale)

    named: Weights = {
        "backbone.embeddings.weight": normal(shape.vocab_size, shape.d_model, scale=0.02),
        "backbone.norm_f.weight": np.ones(shape.d_model, np.float32),
    }
    for index in range(shape.n_layer):
        layer = _mamba(shape, rng) if shape.family == "mamba" else _mamba2(shape, rng)
        for name, (out, width) in zip(_MATRICES[shape.family], shape.matrices, strict=True):
            layer[f"{name}.weight"] = normal(out, width, scale=width**-0.5)
        named[f"backbone.layers.{index}.norm.weight"] = np.ones(shape.d_model, np.float32)
        named |= {f"backbone.layers.{index}.mixer.{name}": array for name, array in layer.items()}
    return named


_MATRICES = {"mamba": ("in_proj", "x_proj", "dt_proj", "out_proj"), "mamba2": ("in_proj", "out_proj")}


def _mamba(shape: Shape, rng: np.random.Generator) -> Weights:
    rates = np.log(np.arange(1, shape.d_state + 1, dtype=np.float32))
    return _conv(shape, shape.d_inner, rng) | {
        "dt_proj.bias": _dt_bias(shape.d_inner, rng),
        "A_log": np.tile(rates, (shape.d_inner, 1)),
        "D": np.ones(shape.d_inner, np.float32),
    }


def _mamba2(shape: Shape, rng: np.random.Generator) -> Weights:
    return _conv(shape, shape.d_inner + 2 * shape.d_state, rng) | {
        "dt_bias": _dt_bias(shape.n_heads, rng),
        "A_log": np.log(rng.uniform(1, 16, shape.n_heads)).astype(np.float32),
        "D": np.ones(shape.n_heads, np.float32),
        "norm.weight": np.ones(shape.d_inner, np.float32),
    }


def _conv(shape: Shape, channels: int, rng: np.random.Generator) -> Weights:
    bound = shape.d_conv**-0.5
    return {
        "conv1d.weight": rng.uniform(-bound, bound, (channels, 1, shape.d_conv)).astype(np.float32),
        "conv1d.bias": np.zeros(channels, np.float32),
    }


def _dt_bias(units: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """The inverse softplus of step sizes spread over 0.001 to 0.1."""
    step = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), units))
    return (step + np.log(-np.expm1(-step))).astype(np.float32)
