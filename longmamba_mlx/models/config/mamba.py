"""Mamba-1 and Falcon-Mamba, as transformers writes their config.json."""

from __future__ import annotations

from longmamba_mlx.models.config.base import (
    MAX_CONV,
    MAX_LAYERS,
    MAX_STATE,
    MAX_VOCABULARY,
    MAX_WIDTH,
    ModelConfig,
    dt_rank,
    expanded,
    refuse_activation,
    training_length,
)
from longmamba_mlx.storage.json_config import Reader


def parse(reader: Reader) -> ModelConfig:
    """Read the config.json of a `mamba` or `falcon_mamba` model. Raises ConfigError."""
    refuse_activation(reader)
    model_type = str(reader.raw["model_type"])
    d_model = reader.integer("hidden_size", MAX_WIDTH)
    d_inner = reader.integer("intermediate_size", MAX_WIDTH, default=expanded(reader, "expand", d_model))
    vocab_size = reader.integer("vocab_size", MAX_VOCABULARY)
    falcon = model_type == "falcon_mamba"
    return ModelConfig(
        model_type=model_type,
        vocab_size=vocab_size,
        d_model=d_model,
        n_layer=reader.integer("num_hidden_layers", MAX_LAYERS),
        d_inner=d_inner,
        d_state=reader.integer("state_size", MAX_STATE, default=16),
        d_conv=reader.integer("conv_kernel", MAX_CONV, minimum=2, default=4),
        dt_rank=dt_rank(reader, "time_step_rank", d_model),
        norm_eps=reader.number("layer_norm_epsilon", 1e-12, 1.0, 1e-5),
        # The class's default in transformers, for files that leave it out.
        mixer_rms_eps=reader.number("mixer_rms_eps", 1e-12, 1.0, 1e-6) if falcon else None,
        use_bias=reader.flag("use_bias", False),
        use_conv_bias=reader.flag("use_conv_bias", True),
        tie_embeddings=reader.flag("tie_word_embeddings", True),
        training_length=training_length(reader),
        eos_token_ids=reader.token_ids("eos_token_id", vocab_size),
    )
