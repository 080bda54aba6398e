"""Llamba (arXiv 2502.14458): Llama's weights distilled into discrete Mamba-2 layers, each with Llama's MLP."""

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
from longmamba_mlx.models.config.hybrid import MAMBA, HybridConfig
from longmamba_mlx.storage.json_config import Reader, shown


def parse(reader: Reader) -> ModelConfig:
    """A Llamba config.json: mamba_ssm's keys at the top, `ssm_cfg` and `mlp_cfg`. Raises ConfigError."""
    ssm, mlp = reader.table("ssm_cfg"), reader.table("mlp_cfg")
    refuse_activation(mlp, "act_fn")
    if reader.flag("lm_head_bias", False):
        raise reader.fail("lm_head_bias", "is true, which is not supported")
    d_model = reader.integer("d_model", MAX_WIDTH)
    n_layer = reader.integer("n_layer", MAX_LAYERS, default=32)
    multiple = reader.integer("pad_vocab_size_multiple", 1 << 16, default=8)
    vocab_size = -(-reader.integer("vocab_size", MAX_VOCABULARY) // multiple) * multiple
    # The reference multiplies by whole numbers only.
    d_inner = expanded(ssm, "expand", d_model) if ssm.has("expand") else d_model
    heads = ssm.integer("n_v_heads", MAX_WIDTH, default=32)
    if d_inner % heads:
        raise ssm.fail("n_v_heads", f"is {heads}, which does not divide the inner width {d_inner}")
    return ModelConfig(
        model_type="llamba",
        vocab_size=vocab_size,
        d_model=d_model,
        n_layer=n_layer,
        d_inner=d_inner,
        d_state=ssm.integer("d_state", MAX_STATE, default=64),
        d_conv=ssm.integer("d_conv", MAX_CONV, minimum=2, default=4),
        n_heads=heads,
        headdim=d_inner // heads,
        n_groups=ssm.integer("n_qk_heads", MAX_WIDTH, default=32),
        chunk_size=ssm.integer("chunk_size", 1 << 16, default=128),
        norm_eps=reader.number("norm_epsilon", 1e-12, 1.0, 1e-5),
        use_bias=ssm.flag("bias", False),
        use_conv_bias=ssm.flag("conv_bias", True),
        tie_embeddings=reader.flag("tie_embeddings", False),
        training_length=training_length(reader),
        eos_token_ids=reader.token_ids("eos_token_id", vocab_size),
        hybrid=HybridConfig(
            layers=(MAMBA,) * n_layer,
            d_ff=mlp.integer("intermediate_size", MAX_WIDTH, default=14336),
            ff_bias=mlp.flag("bias", False),
            gated_norm=False,
            conv_activation=_activated(ssm),
        ),
    )


def _activated(ssm: Reader) -> bool:
    """Whether a silu follows the convolution."""
    activation = ssm.raw.get("activation", "identity")
    if activation not in ("identity", "silu", "swish"):
        raise ssm.fail("activation", f"is {shown(activation)}; only identity and silu are supported")
    return activation != "identity"
