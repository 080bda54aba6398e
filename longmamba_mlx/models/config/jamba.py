"""Jamba: Mamba-1 with normed dt, B and C, or attention without positions; then an MLP, every few layers routed."""

from __future__ import annotations

from longmamba_mlx.models.config import readers
from longmamba_mlx.models.config.base import (
    MAX_CONV,
    MAX_LAYERS,
    MAX_STATE,
    MAX_WIDTH,
    ModelConfig,
    dt_rank,
    refuse_activation,
)
from longmamba_mlx.models.config.hybrid import ATTENTION, MAMBA, ExpertsConfig, HybridConfig
from longmamba_mlx.storage.json_config import Reader

_MAX_EXPERTS = 4096


def parse(reader: Reader) -> ModelConfig:
    """A Jamba config.json. Raises ConfigError."""
    refuse_activation(reader)
    d_model = reader.integer("hidden_size", MAX_WIDTH)
    n_layer = reader.integer("num_hidden_layers", MAX_LAYERS)
    vocab_size = readers.vocabulary(reader)
    attends = _every(reader, "attn_layer", n_layer, period=8, offset=4)
    experts = _experts(reader)
    return ModelConfig(
        model_type="jamba",
        vocab_size=vocab_size,
        d_model=d_model,
        n_layer=n_layer,
        d_inner=_inner(reader, d_model),
        d_state=reader.integer("mamba_d_state", MAX_STATE, default=16),
        d_conv=reader.integer("mamba_d_conv", MAX_CONV, minimum=2, default=4),
        dt_rank=dt_rank(reader, "mamba_dt_rank", d_model),
        norm_eps=reader.number("rms_norm_eps", 1e-12, 1.0, 1e-6),
        use_bias=reader.flag("mamba_proj_bias", False),
        use_conv_bias=reader.flag("mamba_conv_bias", True),
        tie_embeddings=reader.flag("tie_word_embeddings", False),
        training_length=readers.training_length(reader, 262_144),
        eos_token_ids=reader.token_ids("eos_token_id", vocab_size),
        hybrid=HybridConfig(
            layers=tuple(ATTENTION if attends[index] else MAMBA for index in range(n_layer)),
            attention=readers.attention(reader, d_model, rope=False),
            d_ff=reader.integer("intermediate_size", MAX_WIDTH),
            experts=experts,
            routed=_every(reader, "expert_layer", n_layer, period=2, offset=1) if experts else (),
        ),
    )


def _inner(reader: Reader, d_model: int) -> int:
    d_inner = reader.integer("mamba_expand", 64, default=2) * d_model
    if d_inner > MAX_WIDTH:
        raise reader.fail("mamba_expand", f"makes an inner width of {d_inner}, more than {MAX_WIDTH}")
    return d_inner


def _every(reader: Reader, name: str, n_layer: int, *, period: int, offset: int) -> tuple[bool, ...]:
    """The layers with index % period == offset, by the keys `name`_period and `name`_offset."""
    period = reader.integer(f"{name}_period", MAX_LAYERS, default=period)
    # An offset that no layer can have is refused, not read as "none".
    offset = reader.integer(f"{name}_offset", period - 1, minimum=0, default=offset)
    return tuple(index % period == offset for index in range(n_layer))


def _experts(reader: Reader) -> ExpertsConfig | None:
    count = reader.integer("num_experts", _MAX_EXPERTS, default=16)
    # transformers' other name for the same number, which its reader takes too.
    count = reader.integer("num_local_experts", _MAX_EXPERTS, default=count)
    if count == 1:
        return None
    return ExpertsConfig(
        count=count,
        per_token=reader.integer("num_experts_per_tok", count, default=min(2, count)),
        width=reader.integer("intermediate_size", MAX_WIDTH),
    )
