"""Phi-4-mini-flash (SambaY, arXiv 2507.06607): Mamba-1 and attention in windows, then layers that share one memory.

Of N layers the first N / 2 are Mamba-1 and windowed attention in turn. The others have one scan and one set of keys and
values between them, and are one layer here.
"""

from __future__ import annotations

from longmamba_mlx.models.config import readers
from longmamba_mlx.models.config.base import (
    MAX_CONV,
    MAX_LAYERS,
    MAX_LENGTH,
    MAX_STATE,
    MAX_WIDTH,
    ModelConfig,
    dt_rank,
    expanded,
    refuse_activation,
)
from longmamba_mlx.models.config.hybrid import ATTENTION, BOTH, MAMBA, WINDOWED, AttentionConfig, HybridConfig
from longmamba_mlx.storage.json_config import Reader, shown


def parse(reader: Reader) -> ModelConfig:
    """A Phi-4-mini-flash config.json. Raises ConfigError."""
    refuse_activation(reader)
    if reader.flag("lm_head_bias", False):
        raise reader.fail("lm_head_bias", "is true, which is not supported")
    if reader.integer("mb_per_layer", MAX_LAYERS, minimum=0, default=2) != 2:
        raise reader.fail("mb_per_layer", f"is {shown(reader.raw['mb_per_layer'])}; only 2 is supported")
    d_model = reader.integer("hidden_size", MAX_WIDTH)
    vocab_size = readers.vocabulary(reader)
    count = reader.integer("num_hidden_layers", MAX_LAYERS, minimum=4, default=32)
    if count % 4:
        raise reader.fail("num_hidden_layers", f"is {count}, not a multiple of 4")
    window = _window(reader, count)
    first = (MAMBA, ATTENTION if window is None else WINDOWED)
    return ModelConfig(
        model_type="phi4flash",
        vocab_size=vocab_size,
        d_model=d_model,
        n_layer=count // 2 + 1,
        d_inner=expanded(reader, "mamba_expand", d_model),
        d_state=reader.integer("mamba_d_state", MAX_STATE, default=16),
        d_conv=reader.integer("mamba_d_conv", MAX_CONV, minimum=2, default=4),
        dt_rank=dt_rank(reader, "mamba_dt_rank", d_model),
        norm_eps=reader.number("layer_norm_eps", 1e-12, 1.0, 1e-5),
        use_bias=reader.flag("mamba_proj_bias", False),
        use_conv_bias=reader.flag("mamba_conv_bias", True),
        tie_embeddings=reader.flag("tie_word_embeddings", True),
        training_length=readers.training_length(reader, 4096),
        eos_token_ids=reader.token_ids("eos_token_id", vocab_size),
        hybrid=HybridConfig(
            layers=(*first * (count // 4), BOTH),
            attention=_attention(reader, d_model, window or 0),
            d_ff=reader.integer("intermediate_size", MAX_WIDTH, default=9216),
            ff_bias=reader.flag("mlp_bias", False),
        ),
    )


def _window(reader: Reader, count: int) -> int | None:
    """Of how many tokens, itself included, a token of a windowed layer hears (as in vLLM and TensorRT-LLM); None: of
    all."""
    value = reader.raw.get("sliding_window")
    if isinstance(value, list | tuple):  # as the publisher's config class stores it: one entry for each layer
        own = [window for window in value if window is not None]
        placed = [index for index, window in enumerate(value) if window is not None]
        if len(value) != count or (own and placed != list(range(1, count // 2, 2))) or len(set(map(repr, own))) > 1:
            raise reader.fail("sliding_window", "does not bound every other layer of the first half alike")
        value = own[0] if own else None
    if value is None:
        return None
    return Reader({"sliding_window": value}, reader.prefix).integer("sliding_window", MAX_LENGTH)


def _attention(reader: Reader, d_model: int, window: int) -> AttentionConfig:
    """Attention of pairs of heads, without positions."""
    heads = reader.integer("num_attention_heads", readers.MAX_HEADS)
    kv_heads = reader.integer("num_key_value_heads", readers.MAX_HEADS, default=heads)
    if d_model % heads or heads % 2:
        raise reader.fail("num_attention_heads", f"is {heads}, not an even number that divides a width of {d_model}")
    if kv_heads % 2 or heads % kv_heads:
        raise reader.fail("num_key_value_heads", f"is {kv_heads}, not an even number that divides {heads} heads")
    return AttentionConfig(
        n_heads=heads,
        n_kv_heads=kv_heads,
        head_dim=d_model // heads,
        scale=(d_model // heads) ** -0.5,
        bias=True,
        own_window=window,
    )
