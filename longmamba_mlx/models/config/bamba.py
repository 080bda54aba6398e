"""Bamba: Mamba-2 or attention, then a gated MLP; rotary positions on half of each head."""

from __future__ import annotations

from longmamba_mlx.models.config import readers
from longmamba_mlx.models.config.base import MAX_WIDTH, ModelConfig
from longmamba_mlx.models.config.hybrid import ATTENTION, MAMBA, HybridConfig
from longmamba_mlx.storage.json_config import Reader, shown

_TURNED = 0.5  # the share of a head that turns, in every Bamba


def parse(reader: Reader) -> ModelConfig:
    """A Bamba config.json. Raises ConfigError."""
    common = readers.common(reader, length=262_144)
    return ModelConfig(
        model_type="bamba",
        **common,
        hybrid=HybridConfig(
            layers=_layers(reader, common["n_layer"]),
            attention=readers.attention(reader, common["d_model"], turned=_TURNED),
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
