"""Granite 4 hybrids (`granitemoehybrid`): Mamba-2 or attention, then an MLP, with or without routed experts."""

from __future__ import annotations

from longmamba_mlx.boundedjson import Reader, shown
from longmamba_mlx.configs import readers
from longmamba_mlx.configs.base import MAX_LAYERS, MAX_WIDTH, ModelConfig, refuse_activation
from longmamba_mlx.configs.hybrid import ATTENTION, MAMBA, ExpertsConfig, HybridConfig, Multipliers

MAX_EXPERTS = 4096


def parse(reader: Reader) -> ModelConfig:
    """A Granite hybrid's config.json. Raises ConfigError."""
    refuse_activation(reader)
    d_model = reader.integer("hidden_size", MAX_WIDTH)
    n_layer = reader.integer("num_hidden_layers", MAX_LAYERS)
    vocab_size = readers.vocabulary(reader)
    layers = readers.layer_kinds(reader, ("layer_types", "layers_block_type"), (MAMBA, ATTENTION))
    layers = layers or (MAMBA,) * n_layer
    if len(layers) != n_layer:
        raise reader.fail("layer_types", f"lists {len(layers)} layers, but there are {n_layer}")
    return ModelConfig(
        model_type="granitemoehybrid",
        vocab_size=vocab_size,
        d_model=d_model,
        n_layer=n_layer,
        **readers.sizes(reader, d_model),
        time_step_limit=reader.limits("time_step_limit"),
        norm_eps=reader.number("rms_norm_eps", 1e-12, 1.0, 1e-6),
        use_bias=reader.flag("mamba_proj_bias", False),
        use_conv_bias=reader.flag("mamba_conv_bias", True),
        tie_embeddings=reader.flag("tie_word_embeddings", False),
        training_length=readers.training_length(reader, 2048),
        eos_token_ids=reader.token_ids("eos_token_id", vocab_size),
        hybrid=HybridConfig(
            layers=layers,
            attention=readers.attention(
                reader, d_model, scale=readers.factor(reader, "attention_multiplier"), rope=_turns(reader)
            ),
            d_ff=reader.integer("shared_intermediate_size", MAX_WIDTH, default=1024),
            experts=_experts(reader),
            multipliers=_multipliers(reader),
            out_bias=reader.flag("mamba_proj_bias", False),
        ),
    )


def _turns(reader: Reader) -> bool:
    kind = reader.raw.get("position_embedding_type")
    if kind not in (None, "nope", "rope"):
        raise reader.fail("position_embedding_type", f"is {shown(kind)}; rope and nope are supported")
    return kind == "rope"


def _experts(reader: Reader) -> ExpertsConfig | None:
    count = reader.integer("num_local_experts", MAX_EXPERTS, minimum=0, default=8)
    if not count:
        return None
    return ExpertsConfig(
        count=count,
        per_token=reader.integer("num_experts_per_tok", count, default=min(2, count)),
        width=reader.integer("intermediate_size", MAX_WIDTH),
    )


def _multipliers(reader: Reader) -> Multipliers:
    return Multipliers(
        embedding=readers.factor(reader, "embedding_multiplier"),
        logits=1.0 / reader.number("logits_scaling", 1e-9, 1e9, 1.0),
        residual=readers.factor(reader, "residual_multiplier"),
    )
