"""Models as mamba_ssm writes their config.json: `d_model`, `n_layer`, `ssm_cfg`, and no `model_type`."""

from __future__ import annotations

import math

from longmamba_mlx.models.config import llamba, mamba3
from longmamba_mlx.models.config.base import (
    MAX_CONV,
    MAX_LAYERS,
    MAX_STATE,
    MAX_VOCABULARY,
    MAX_WIDTH,
    ModelConfig,
    dt_rank,
    expanded,
    training_length,
)
from longmamba_mlx.storage.json_config import Reader, shown


def parse(reader: Reader) -> ModelConfig:
    """Read sizes from the top and the layer's own options from `ssm_cfg`. Raises ConfigError."""
    ssm = reader.table("ssm_cfg")
    if "n_v_heads" in ssm.raw:
        return llamba.parse(reader)
    layer = ssm.raw.get("layer", "Mamba1")
    if layer == "Mamba3":
        return mamba3.parse(reader)
    if layer not in ("Mamba1", "Mamba2"):
        raise ssm.fail("layer", f"is {shown(layer)}, which is not supported")
    _refuse_options(reader, ssm)
    d_model = reader.integer("d_model", MAX_WIDTH)
    mamba2 = layer == "Mamba2"
    multiple = reader.integer("pad_vocab_size_multiple", 1 << 16, default=8)
    vocab_size = -(-reader.integer("vocab_size", MAX_VOCABULARY) // multiple) * multiple
    d_inner = expanded(ssm, "expand", d_model)
    headdim = ssm.integer("headdim", MAX_WIDTH, default=64) if mamba2 else 0
    if mamba2 and d_inner % headdim:
        raise ssm.fail("headdim", f"is {headdim}, which does not divide the inner width {d_inner}")
    return ModelConfig(
        model_type="mamba2" if mamba2 else "mamba",
        vocab_size=vocab_size,
        d_model=d_model,
        n_layer=reader.integer("n_layer", MAX_LAYERS),
        d_inner=d_inner,
        d_state=ssm.integer("d_state", MAX_STATE, default=128 if mamba2 else 16),
        d_conv=ssm.integer("d_conv", MAX_CONV, minimum=2, default=4),
        dt_rank=0 if mamba2 else dt_rank(ssm, "dt_rank", d_model),
        n_heads=d_inner // headdim if mamba2 else 0,
        headdim=headdim,
        n_groups=ssm.integer("ngroups", MAX_WIDTH, default=1) if mamba2 else 1,
        chunk_size=ssm.integer("chunk_size", 1 << 16, default=256) if mamba2 else 64,
        time_step_limit=ssm.limits("dt_limit") if mamba2 else (0.0, math.inf),
        norm_eps=reader.number("norm_epsilon", 1e-12, 1.0, 1e-5),
        use_bias=ssm.flag("bias", False),
        use_conv_bias=ssm.flag("conv_bias", True),
        tie_embeddings=reader.flag("tie_embeddings", True),
        norm_before_gate=ssm.flag("norm_before_gate", False) if mamba2 else False,
        training_length=training_length(reader),
        eos_token_ids=reader.token_ids("eos_token_id", vocab_size),
    )


def _refuse_options(reader: Reader, ssm: Reader) -> None:
    """Options of mamba_ssm that change the arithmetic and that no public pure-Mamba checkpoint uses."""
    if not reader.flag("rms_norm", True):
        raise reader.fail("rms_norm", "is false; models with LayerNorm are not supported")
    if not ssm.flag("rmsnorm", True):
        raise ssm.fail("rmsnorm", "is false; mixers without the gated norm are not supported")
    if ssm.flag("D_has_hdim", False):
        raise ssm.fail("D_has_hdim", "is true, which is not supported")
    if reader.raw.get("attn_layer_idx"):
        raise reader.fail("attn_layer_idx", "asks for attention layers, which are not supported")
    for table, key in ((reader, "d_intermediate"), (ssm, "d_ssm")):
        if table.raw.get(key):
            raise table.fail(key, "is set, which is not supported")
