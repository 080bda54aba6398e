"""Mamba-3's configuration: mamba_ssm's own files, whose `ssm_cfg` names the layer Mamba3."""

from __future__ import annotations

from longmamba_mlx.models.config.base import (
    MAX_LAYERS,
    MAX_STATE,
    MAX_VOCABULARY,
    MAX_WIDTH,
    Mamba3Config,
    ModelConfig,
    expanded,
    training_length,
)
from longmamba_mlx.storage.json_config import Reader, shown

_MULTIPLE = 128  # mamba_ssm rounds the inner width of its MLPs up to one of this
_MAX_RANK = 64


def parse(reader: Reader) -> ModelConfig:
    """Sizes at the top, what the layer's constructor was given in `ssm_cfg`. Raises ConfigError."""
    ssm = reader.table("ssm_cfg")
    _refuse_options(reader)
    d_model = reader.integer("d_model", MAX_WIDTH)
    multiple = reader.integer("pad_vocab_size_multiple", 1 << 16, default=8)
    vocab_size = -(-reader.integer("vocab_size", MAX_VOCABULARY) // multiple) * multiple
    d_inner = expanded(ssm, "expand", d_model)
    headdim = ssm.integer("headdim", MAX_WIDTH, default=64)
    if d_inner % headdim:
        raise ssm.fail("headdim", f"is {headdim}, which does not divide the inner width {d_inner}")
    d_state = ssm.integer("d_state", MAX_STATE, minimum=2, default=128)
    if d_state % 2:
        raise ssm.fail("d_state", f"is {d_state}, whose dimensions cannot turn in pairs")
    mimo = ssm.flag("is_mimo", False)
    return ModelConfig(
        model_type="mamba3",
        vocab_size=vocab_size,
        d_model=d_model,
        n_layer=reader.integer("n_layer", MAX_LAYERS),
        d_inner=d_inner,
        d_state=d_state,
        d_conv=1,
        n_heads=d_inner // headdim,
        headdim=headdim,
        n_groups=ssm.integer("ngroups", MAX_WIDTH, default=1),
        chunk_size=ssm.integer("chunk_size", 1 << 16, default=64),
        norm_eps=reader.number("norm_epsilon", 1e-12, 1.0, 1e-5),
        tie_embeddings=reader.flag("tie_embeddings", True),
        training_length=training_length(reader),
        eos_token_ids=reader.token_ids("eos_token_id", vocab_size),
        mamba3=Mamba3Config(
            angles=_angles(ssm, d_state),
            mimo=mimo,
            rank=ssm.integer("mimo_rank", _MAX_RANK, default=4) if mimo else 1,
            decay_floor=ssm.number("A_floor", 0.0, 1e6, 1e-4),
            gated_norm=ssm.flag("is_outproj_norm", False),
            d_ff=-(-reader.integer("d_intermediate", MAX_WIDTH, minimum=0, default=0) // _MULTIPLE) * _MULTIPLE,
        ),
    )


def _angles(ssm: Reader, d_state: int) -> int:
    """How many pairs of state dimensions turn."""
    fraction = ssm.number("rope_fraction", 0.0, 1.0, 0.5)
    if fraction not in (0.5, 1.0):
        raise ssm.fail("rope_fraction", f"is {shown(fraction)}; only 0.5 and 1.0 are supported")
    angles = int(d_state * fraction) // 2
    if not angles:
        raise ssm.fail("d_state", f"is {d_state}, of which {fraction:g} cannot turn in pairs")
    return angles


def _refuse_options(reader: Reader) -> None:
    if not reader.flag("rms_norm", True):
        raise reader.fail("rms_norm", "is false; models with LayerNorm are not supported")
    if reader.raw.get("attn_layer_idx"):
        raise reader.fail("attn_layer_idx", "asks for attention layers, which are not supported beside Mamba-3")
