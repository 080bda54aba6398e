"""A Mamba checkpoint as the GGUF file that llama.cpp loads, float32, without a vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.models.config.parse import ModelConfig, parse_config, read_json
from longmamba_mlx.storage.atomic import write_atomic
from longmamba_mlx.storage.checked_safetensors import load_arrays

Array = NDArray[np.float32]

_NAMES = {
    "backbone.embeddings.weight": "token_embd.weight",
    "backbone.norm_f.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_PARTS = {
    "norm.weight": "attn_norm.weight",
    "mixer.in_proj.weight": "ssm_in.weight",
    "mixer.conv1d.weight": "ssm_conv1d.weight",
    "mixer.conv1d.bias": "ssm_conv1d.bias",
    "mixer.x_proj.weight": "ssm_x.weight",
    "mixer.dt_proj.weight": "ssm_dt.weight",
    "mixer.dt_proj.bias": "ssm_dt.bias",
    "mixer.dt_bias": "ssm_dt.bias",
    "mixer.A_log": "ssm_a",
    "mixer.D": "ssm_d",
    "mixer.norm.weight": "ssm_norm.weight",
    "mixer.out_proj.weight": "ssm_out.weight",
}


def write_gguf(folder: Path) -> Path:
    """The GGUF twin of the checkpoint in `folder`, written beside it unless it is there."""
    path = folder / "model.gguf"
    if path.exists():
        return path
    config = parse_config(read_json(folder / "config.json"))
    arrays = load_arrays(folder / "model.safetensors")[0]

    def write(draft: Path) -> None:
        from gguf import GGUFWriter

        writer = GGUFWriter(draft, config.model_type)
        _describe(writer, config)
        for name, array in arrays.items():
            writer.add_tensor(*_tensor(name, np.asarray(array), config))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    write_atomic(path, write, private=False)
    return path


def _describe(writer: Any, config: ModelConfig) -> None:
    writer.add_context_length(1 << 20)
    writer.add_embedding_length(config.d_model)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_block_count(config.n_layer)
    writer.add_vocab_size(config.vocab_size)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_ssm_conv_kernel(config.d_conv)
    writer.add_ssm_inner_size(config.d_inner)
    writer.add_ssm_state_size(config.d_state)
    writer.add_ssm_time_step_rank(config.dt_rank if config.is_mamba1 else config.n_heads)
    if not config.is_mamba1:
        writer.add_ssm_group_count(config.n_groups)
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(0)


def _tensor(name: str, array: Array, config: ModelConfig) -> tuple[str, Array]:
    """llama.cpp's name and layout: A itself instead of its logarithm, the convolution without its middle axis."""
    if name in _NAMES:
        return _NAMES[name], array
    index, part = name.removeprefix("backbone.layers.").split(".", 1)
    if part == "mixer.A_log":
        array = -np.exp(array)
    if part == "mixer.conv1d.weight":
        array = array.squeeze(1)
    if not config.is_mamba1:
        if part in ("mixer.A_log", "mixer.D"):
            array = array.reshape(-1, 1)
        if part == "mixer.norm.weight":
            array = array.reshape(config.n_groups, -1)
    return f"blk.{index}.{_PARTS[part]}", np.ascontiguousarray(array)
