"""Models as mamba_ssm writes their config.json: `d_model`, `n_layer`, `ssm_cfg`, and no `model_type`."""

from __future__ import annotations

import math

from longmamba_mlx.models.config import llamba, mamba3, readers
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
from longmamba_mlx.models.config.hybrid import ATTENTION, MAMBA, AttentionConfig, HybridConfig, RopeConfig
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
    n_layer = reader.integer("n_layer", MAX_LAYERS)
    return ModelConfig(
        model_type="mamba2" if mamba2 else "mamba",
        vocab_size=vocab_size,
        d_model=d_model,
        n_layer=n_layer,
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
        hybrid=_with_attention(reader, d_model, n_layer) if mamba2 else None,
    )


def _with_attention(reader: Reader, d_model: int, n_layer: int) -> HybridConfig | None:
    """The layers with attention in place of Mamba-2 (`attn_layer_idx`, `attn_cfg`); None where there are none."""
    given = reader.raw.get("attn_layer_idx")
    if not given:
        return None
    if not isinstance(given, list | tuple) or not all(type(index) is int and 0 <= index < n_layer for index in given):
        raise reader.fail("attn_layer_idx", f"must list layers from 0 to {n_layer - 1}, not {shown(given)}")
    layers = tuple(ATTENTION if index in given else MAMBA for index in range(n_layer))
    return HybridConfig(layers=layers, attention=_attention(reader.table("attn_cfg"), d_model))


def _attention(reader: Reader, d_model: int) -> AttentionConfig:
    """What mamba_ssm's attention layers were given."""
    if not reader.flag("causal", False):
        raise reader.fail("causal", "is false; only causal attention is supported")
    for key in ("mlp_dim", "rotary_emb_interleaved"):
        if reader.raw.get(key):
            raise reader.fail(key, "is set, which is not supported")
    heads = reader.integer("num_heads", readers.MAX_HEADS)
    head_dim = reader.integer("head_dim", MAX_WIDTH, default=max(1, d_model // heads))
    kv_heads = reader.integer("num_heads_kv", readers.MAX_HEADS, default=heads)
    if heads % kv_heads:
        raise reader.fail("num_heads_kv", f"is {kv_heads}, which does not divide {heads} heads")
    if heads * head_dim > MAX_WIDTH:
        raise reader.fail("head_dim", f"makes attention {heads * head_dim} wide, more than {MAX_WIDTH}")
    bias = reader.flag("qkv_proj_bias", True)
    if bias != reader.flag("out_proj_bias", True):
        raise reader.fail("out_proj_bias", "is not qkv_proj_bias, which is not supported")
    turned = reader.integer("rotary_emb_dim", head_dim, minimum=0, default=0)
    if turned % 2:
        raise reader.fail("rotary_emb_dim", f"is {turned}, of which dimensions cannot turn in pairs")
    base = reader.number("rotary_emb_base", 1.0, 1e15, 10_000.0)
    return AttentionConfig(
        n_heads=heads,
        n_kv_heads=kv_heads,
        head_dim=head_dim,
        scale=reader.number("softmax_scale", 1e-9, 1e9, head_dim**-0.5),
        bias=bias,
        rope=RopeConfig(theta=base, dims=turned) if turned else None,
        conv=reader.integer("d_conv", MAX_CONV, minimum=0, default=0),
    )


def _refuse_options(reader: Reader, ssm: Reader) -> None:
    """Options of mamba_ssm that change the arithmetic and that no public pure-Mamba checkpoint uses."""
    if not reader.flag("rms_norm", True):
        raise reader.fail("rms_norm", "is false; models with LayerNorm are not supported")
    if not ssm.flag("rmsnorm", True):
        raise ssm.fail("rmsnorm", "is false; mixers without the gated norm are not supported")
    if ssm.flag("D_has_hdim", False):
        raise ssm.fail("D_has_hdim", "is true, which is not supported")
    if reader.raw.get("attn_layer_idx") and ssm.raw.get("layer", "Mamba1") != "Mamba2":
        raise reader.fail("attn_layer_idx", "asks for attention layers, which are supported beside Mamba2 only")
    for table, key in ((reader, "d_intermediate"), (ssm, "d_ssm")):
        if table.raw.get(key):
            raise table.fail(key, "is set, which is not supported")
