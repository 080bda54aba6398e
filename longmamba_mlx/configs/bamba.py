"""Bamba: Mamba-2 or attention, then a gated MLP; rotary positions on half of each head."""

from __future__ import annotations

from longmamba_mlx.boundedjson import Reader, shown
from longmamba_mlx.configs import readers
from longmamba_mlx.configs.base import MAX_LAYERS, MAX_WIDTH, ModelConfig, refuse_activation
from longmamba_mlx.configs.hybrid import ATTENTION, MAMBA, HybridConfig

_TURNED = 0.5  # the share of a head that turns, in every Bamba


def parse(reader: Reader) -> ModelConfig:
    """A Bamba config.json. Raises ConfigError."""
    refuse_activation(reader)
    d_model = reader.integer("hidden_size", MAX_WIDTH)
    n_layer = reader.integer("num_hidden_layers", MAX_LAYERS)
    vocab_size = readers.vocabulary(reader)
    return ModelConfig(
        model_type="bamba",
        vocab_size=vocab_size,
        d_model=d_model,
        n_layer=n_layer,
        **readers.sizes(reader, d_model),
        time_step_limit=reader.limits("time_step_limit"),
        norm_eps=reader.number("rms_norm_eps", 1e-12, 1.0, 1e-5),
        use_bias=reader.flag("mamba_proj_bias", False),
        use_conv_bias=reader.flag("mamba_conv_bias", True),
        tie_embeddings=reader.flag("tie_word_embeddings", False),
        training_length=readers.training_length(reader, 262_144),
        eos_token_ids=reader.token_ids("eos_token_id", vocab_size),
        hybrid=HybridConfig(
            layers=_layers(reader, n_layer),
            attention=readers.attention(reader, d_model, turned=_TURNED),
            d_ff=reader.integer("intermediate_size", MAX_WIDTH),
            ff_bias=reader.flag("mlp_bias", False),
            out_bias=reader.flag("mamba_proj_bias", False),
        ),
    )


def _layers(reader: Reader, n_layer: int) -> tuple[str, ...]:
    value = reader.raw.get("attn_layer_indices")
    indices = [] if value is None else value
    if not isinstance(indices, list | tuple) or len(indices) > n_layer:
        raise reader.fail("attn_layer_indices", f"must list layers, not {shown(value)}")
    for index in indices:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < n_layer:
            raise reader.fail("attn_layer_indices", f"names layer {shown(index)} of {n_layer}")
    return tuple(ATTENTION if index in indices else MAMBA for index in range(n_layer))
