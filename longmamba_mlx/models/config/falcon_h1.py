"""Falcon-H1 (arXiv 2507.22448): Mamba-2 beside attention in every layer, with factors on nearly everything."""

from __future__ import annotations

from longmamba_mlx.models.config import readers
from longmamba_mlx.models.config.base import MAX_WIDTH, ModelConfig
from longmamba_mlx.models.config.hybrid import BOTH, HybridConfig, Multipliers
from longmamba_mlx.storage.json_config import Reader


def parse(reader: Reader) -> ModelConfig:
    """A Falcon-H1 config.json. Raises ConfigError."""
    common = readers.common(_with_inner_width(reader), length=8192)
    return ModelConfig(
        model_type="falcon_h1",
        **common,
        norm_before_gate=reader.flag("mamba_norm_before_gate", True),
        hybrid=HybridConfig(
            layers=(BOTH,) * common["n_layer"],
            attention=readers.attention(reader, common["d_model"]),
            d_ff=reader.integer("intermediate_size", MAX_WIDTH),
            ff_bias=reader.flag("mlp_bias", False),
            multipliers=_multipliers(reader),
            gated_norm=reader.flag("mamba_rms_norm", False),
            out_bias=reader.flag("projectors_bias", False),
        ),
    )


def _with_inner_width(reader: Reader) -> Reader:
    """Resolve `mamba_d_ssm`: null means `mamba_expand` times the width; a missing key means 1024, or the heads' total
    width."""
    if "mamba_d_ssm" in reader.raw:
        return reader
    automatic = reader.raw.get("mamba_d_head", "auto") in ("auto", None)
    headdim = 0 if automatic else reader.integer("mamba_d_head", MAX_WIDTH)
    width = headdim * reader.integer("mamba_n_heads", MAX_WIDTH, default=128) or 1024
    return Reader({**reader.raw, "mamba_d_ssm": width}, reader.prefix)


def _multipliers(reader: Reader) -> Multipliers:
    gate, down = readers.factors(reader, "mlp_multipliers", 2)
    z, x, b_in, c_out, dt = readers.factors(reader, "ssm_multipliers", 5)
    return Multipliers(
        embedding=reader.number("embedding_multiplier", 1e-9, 1e9, 1.0),
        logits=readers.factor(reader, "lm_head_multiplier"),
        key=readers.factor(reader, "key_multiplier"),
        attention_in=readers.factor(reader, "attention_in_multiplier"),
        attention_out=readers.factor(reader, "attention_out_multiplier"),
        ssm_in=readers.factor(reader, "ssm_in_multiplier"),
        ssm_out=readers.factor(reader, "ssm_out_multiplier"),
        ssm=(z, x, b_in, c_out, dt),
        gate=gate,
        down=down,
    )
