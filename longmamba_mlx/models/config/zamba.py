"""Zamba (arXiv 2405.16712): Mamba-1 layers with several heads, some preceded by a shared transformer block."""

from __future__ import annotations

from longmamba_mlx.models.config import readers
from longmamba_mlx.models.config.base import (
    MAX_CONV,
    MAX_LAYERS,
    MAX_STATE,
    MAX_WIDTH,
    ModelConfig,
    dt_rank,
    expanded,
    refuse_activation,
)
from longmamba_mlx.models.config.hybrid import BOTH, MAMBA, AttentionConfig, HybridConfig, SharedConfig
from longmamba_mlx.models.config.zamba2 import activation, attention_heads
from longmamba_mlx.storage.json_config import Reader


def parse(reader: Reader) -> ModelConfig:
    """A Zamba config.json. Raises ConfigError. `n_groups` are Mamba-1's heads."""
    refuse_activation(reader, "hidden_mamba_act")
    d_model = reader.integer("hidden_size", MAX_WIDTH // 2)
    vocab_size = readers.vocabulary(reader)
    layers = _layers(reader)
    d_inner = expanded(reader, "mamba_expand", d_model)
    heads = reader.integer("n_mamba_heads", MAX_WIDTH, default=2)
    if d_inner % heads:
        raise reader.fail("n_mamba_heads", f"is {heads}, which does not divide the inner width {d_inner}")
    return ModelConfig(
        model_type="zamba",
        vocab_size=vocab_size,
        d_model=d_model,
        n_layer=len(layers),
        d_inner=d_inner,
        n_groups=heads,
        d_state=reader.integer("mamba_d_state", MAX_STATE, default=16),
        d_conv=reader.integer("mamba_d_conv", MAX_CONV, minimum=2, default=4),
        dt_rank=dt_rank(reader, "mamba_dt_rank", d_model),
        norm_eps=reader.number("rms_norm_eps", 1e-12, 1.0, 1e-5),
        use_bias=reader.flag("mamba_proj_bias", False),
        use_conv_bias=reader.flag("mamba_conv_bias", True),
        tie_embeddings=reader.flag("tie_word_embeddings", True),
        training_length=readers.training_length(reader, 4096),
        eos_token_ids=reader.token_ids("eos_token_id", vocab_size),
        hybrid=HybridConfig(
            layers=layers,
            attention=_attention(reader, d_model),
            d_ff=reader.integer("intermediate_size", MAX_WIDTH, default=min(4 * d_model, MAX_WIDTH)),
            shared=SharedConfig(blocks=1, rank=0, adapted_attention=False, activation=activation(reader)),
        ),
    )


def _layers(reader: Reader) -> tuple[str, ...]:
    n_layer = reader.integer("num_hidden_layers", MAX_LAYERS, default=76)
    layers = readers.layer_kinds(reader, ("layers_block_type", "layer_types"), (MAMBA, BOTH))
    if layers is None:
        period = reader.integer("attn_layer_period", MAX_LAYERS, default=6)
        offset = reader.integer("attn_layer_offset", MAX_LAYERS, minimum=0, default=4)
        later = (BOTH if index % period == offset else MAMBA for index in range(n_layer - 3))
        layers = (MAMBA, MAMBA, BOTH, *later)
    if len(layers) != n_layer:
        raise reader.fail("num_hidden_layers", f"is {n_layer}, but the layers' kinds are those of {len(layers)}")
    return layers


def _attention(reader: Reader, d_model: int) -> AttentionConfig:
    """Attention over hidden and first embedding together, without positions."""
    _, head_dim = attention_heads(reader, 2 * d_model, default=16)
    return readers.attention(reader, 2 * d_model, scale=(head_dim / 2) ** -0.5, rope=False)
