"""Mamba-2, Codestral-Mamba included, as transformers writes its config.json."""

from __future__ import annotations

from longmamba_mlx.models.config.base import (
    MAX_CONV,
    MAX_LAYERS,
    MAX_STATE,
    MAX_VOCABULARY,
    MAX_WIDTH,
    ModelConfig,
    expanded,
    refuse_activation,
    training_length,
)
from longmamba_mlx.storage.json_config import Reader


def parse(reader: Reader) -> ModelConfig:
    """Read the config.json of a `mamba2` model. Raises ConfigError."""
    refuse_activation(reader)
    d_model = reader.integer("hidden_size", MAX_WIDTH)
    vocab_size = reader.integer("vocab_size", MAX_VOCABULARY)
    n_heads = reader.integer("num_heads", MAX_WIDTH, default=128)
    headdim = reader.integer("head_dim", MAX_WIDTH, default=64)
    # transformers 5 writes no intermediate_size; other tools leave out expand.
    d_inner = expanded(reader, "expand", d_model) if reader.has("expand") else n_heads * headdim
    return ModelConfig(
        model_type="mamba2",
        vocab_size=vocab_size,
        d_model=d_model,
        n_layer=reader.integer("num_hidden_layers", MAX_LAYERS),
        d_inner=reader.integer("intermediate_size", MAX_WIDTH, default=d_inner),
        d_state=reader.integer("state_size", MAX_STATE, default=128),
        d_conv=reader.integer("conv_kernel", MAX_CONV, minimum=2, default=4),
        n_heads=n_heads,
        headdim=headdim,
        n_groups=reader.integer("n_groups", MAX_WIDTH, default=8),
        chunk_size=reader.integer("chunk_size", 1 << 16, default=256),
        time_step_limit=reader.limits("time_step_limit"),
        norm_eps=reader.number("layer_norm_epsilon", 1e-12, 1.0, 1e-5),
        use_bias=reader.flag("use_bias", False),
        use_conv_bias=reader.flag("use_conv_bias", True),
        tie_embeddings=reader.flag("tie_word_embeddings", False),
        # transformers' own files may say `norm_before_gate: true` while its code always gates first, so that
        # key is not read here; this one our converter writes for originals trained the other way.
        norm_before_gate=reader.flag("mamba_norm_before_gate", False),
        training_length=training_length(reader),
        eos_token_ids=reader.token_ids("eos_token_id", vocab_size),
    )
