"""Tiny random checkpoints as other libraries write them: transformers 4 and 5, and mamba_ssm."""

from __future__ import annotations

import json
import math
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.config.parse import ModelConfig
from tests.models.samples import random_model

# What each dialect's config.json says about one of the sample models.
TABLES: dict[str, tuple[str, dict]] = {
    "transformers-4-mamba": (
        "mamba",
        {
            "model_type": "mamba", "vocab_size": 37, "hidden_size": 24, "num_hidden_layers": 3,
            "state_size": 5, "intermediate_size": 40, "conv_kernel": 4, "time_step_rank": 3,
            "layer_norm_epsilon": 1e-5,
            "use_bias": False, "use_conv_bias": True, "hidden_act": "silu", "torch_dtype": "float32",
            "eos_token_id": 0,
        },
    ),
    "transformers-4-falcon": (
        "falcon",
        {
            "model_type": "falcon_mamba", "vocab_size": 37, "hidden_size": 24, "num_hidden_layers": 2,
            "state_size": 8, "expand": 2, "conv_kernel": 4, "time_step_rank": 4, "mixer_rms_eps": 1e-3,
            "tie_word_embeddings": False,
        },
    ),
    "transformers-5-mamba2": (
        "mamba2-groups",
        {
            "model_type": "mamba2", "vocab_size": 37, "hidden_size": 24, "num_hidden_layers": 2,
            "state_size": 5,
            "num_heads": 8, "head_dim": 6, "n_groups": 4, "conv_kernel": 4, "layer_norm_epsilon": 1e-3,
            "tie_word_embeddings": False, "use_bias": True, "chunk_size": 64, "time_step_limit": [0.01, 0.5],
            "dtype": "float32", "layer_types": ["linear_attention"] * 2,
        },
    ),
    "original-mamba1": (
        "mamba",
        {
            "d_model": 24, "n_layer": 3, "vocab_size": 35, "pad_vocab_size_multiple": 37,
            "ssm_cfg": {"d_state": 5, "expand": 40 / 24, "dt_rank": 3}, "rms_norm": True,
        },
    ),
    "original-mamba2": (
        "mamba2",
        {
            "d_model": 24, "n_layer": 3, "vocab_size": 37, "pad_vocab_size_multiple": 1,
            "tie_embeddings": True,
            "ssm_cfg": {"layer": "Mamba2", "d_state": 8, "headdim": 8, "chunk_size": 64},
            "longmamba": {"training_length": 512, "question": "\nQuestion: {question}\nAnswer:"},
        },
    ),
    "original-mamba2-before": (
        "mamba2-before",
        {
            "d_model": 24, "n_layer": 2, "vocab_size": 37, "pad_vocab_size_multiple": 1,
            "ssm_cfg": {"layer": "Mamba2", "d_state": 8, "headdim": 24, "ngroups": 2, "d_conv": 3,
                        "norm_before_gate": True, "dt_limit": [0.0, math.inf], "chunk_size": 64},
        },
    ),
}  # fmt: skip


def original_tensors(dialect: str, model: LanguageModel) -> dict[str, mx.array]:
    """The model's parameters under the names and in the layouts of the dialect."""
    tensors = {}
    for name, array in tree_flatten(model.parameters()):
        if name.endswith("conv1d.weight"):
            array = mx.contiguous(array.swapaxes(1, 2))  # PyTorch keeps (c, 1, k)
        if dialect.startswith("original") and name == "backbone.embeddings.weight":
            name = "backbone.embedding.weight"
        tensors[name] = array
    if dialect.startswith("original") and "lm_head.weight" not in tensors:
        tensors["lm_head.weight"] = tensors["backbone.embedding.weight"]  # written although it is tied
    return tensors


def tiny_tokenizer(tokens: int = 30) -> str:
    """A tokenizer.json that knows the letters."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = {chr(ord("a") + number): number for number in range(tokens)}
    backend = Tokenizer(models.BPE(vocab=letters, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return backend.to_str()


def write_checkpoint(
    folder: Path, dialect: str, *, shards: int = 1, dtype: mx.Dtype = mx.float32
) -> tuple[LanguageModel, ModelConfig]:
    """Write the folder and return the model it holds."""
    sample, table = TABLES[dialect]
    model = random_model(sample)
    tensors = {name: array.astype(dtype) for name, array in original_tensors(dialect, model).items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(table))
    (folder / "tokenizer.json").write_text(tiny_tokenizer())
    (folder / "README.md").write_text("not wanted")
    names = np.array_split(sorted(tensors), shards)
    index = {}
    for number, part in enumerate(names):
        name = "model.safetensors" if shards == 1 else f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        mx.save_safetensors(str(folder / name), {key: tensors[key] for key in part.tolist()})
        index.update(dict.fromkeys(part.tolist(), name))
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return model, model.config
