"""Granite 4 hybrids (`granitemoehybrid`): Mamba-2 or attention, then an MLP, with or without routed experts."""

from __future__ import annotations

from longmamba_mlx.models.config import readers
from longmamba_mlx.models.config.base import MAX_WIDTH, ModelConfig
from longmamba_mlx.models.config.hybrid import ATTENTION, MAMBA, ExpertsConfig, HybridConfig, Multipliers
from longmamba_mlx.storage.json_config import Reader, shown

MAX_EXPERTS = 4096


def parse(reader: Reader) -> ModelConfig:
    """A Granite hybrid's config.json. Raises ConfigError."""
    common = readers.common(reader, length=2048, norm_eps=1e-6)
    n_layer = common["n_layer"]
    layers = readers.layer_kinds(reader, ("layer_types", "layers_block_type"), (MAMBA, ATTENTION))
    layers = layers or (MAMBA,) * n_layer
    if len(layers) != n_layer:
        raise reader.fail("layer_types", f"lists {len(layers)} layers, but there are {n_layer}")
    return ModelConfig(
        model_type="granitemoehybrid",
        **common,
        hybrid=HybridConfig(
            layers=layers,
            attention=readers.attention(
                reader, common["d_model"], scale=readers.factor(reader, "attention_multiplier"), rope=_turns(reader)
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
