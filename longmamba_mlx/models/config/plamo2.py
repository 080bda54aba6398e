"""PLaMo-2 (arXiv 2509.04897): Mamba-2 layers whose B, C and dt are projected from x, between attention in windows."""

from __future__ import annotations

from longmamba_mlx.models.config import readers
from longmamba_mlx.models.config.base import (
    MAX_CONV,
    MAX_LAYERS,
    MAX_LENGTH,
    MAX_STATE,
    MAX_WIDTH,
    ModelConfig,
    training_length,
)
from longmamba_mlx.models.config.hybrid import ATTENTION, MAMBA, WINDOWED, AttentionConfig, HybridConfig
from longmamba_mlx.storage.json_config import Reader, shown

_ANY_LENGTH = 10 << 20  # what the publisher's code writes for a model of any length


def parse(reader: Reader) -> ModelConfig:
    """A PLaMo-2 config.json. Raises ConfigError."""
    if reader.raw.get("linear_type", "normal") not in ("normal", None):
        raise reader.fail("linear_type", f"is {shown(reader.raw['linear_type'])}; only normal is supported")
    d_model, head_dim = reader.integer("hidden_size", MAX_WIDTH), _head_dim(reader)
    heads = reader.integer("mamba_num_heads", readers.MAX_HEADS, default=64)
    vocab_size, window = readers.vocabulary(reader), _window(reader)
    layers = _layers(reader)
    return ModelConfig(
        model_type="plamo2",
        vocab_size=vocab_size,
        d_model=d_model,
        n_layer=len(layers),
        d_inner=heads * head_dim,
        d_state=reader.integer("mamba_d_state", MAX_STATE, default=64),
        d_conv=reader.integer("mamba_d_conv", MAX_CONV, minimum=2, default=4),
        dt_rank=max(64, d_model // 16),
        n_heads=heads,
        headdim=head_dim,
        chunk_size=reader.integer("mamba_chunk_size", 1 << 16, default=256),
        norm_eps=reader.number("rms_norm_eps", 1e-12, 1.0, 1e-6),
        use_conv_bias=False,
        tie_embeddings=reader.flag("tie_word_embeddings", True),
        training_length=training_length(reader, _trained(reader, window)),
        eos_token_ids=reader.token_ids("eos_token_id", vocab_size),
        hybrid=HybridConfig(
            layers=layers,
            attention=_attention(reader, head_dim, window),
            d_ff=reader.integer("intermediate_size", MAX_WIDTH, default=13312),
            gated_norm=False,
        ),
    )


def _head_dim(reader: Reader) -> int:
    return reader.integer("hidden_size_per_head", MAX_WIDTH, default=128)


def _window(reader: Reader) -> int:
    return reader.integer("attention_window_size", MAX_LENGTH, default=2048)


def _trained(reader: Reader, window: int) -> int:
    """The positions it was trained for; the attention's window where the file says only that any length will do."""
    said = reader.integer("max_position_embeddings", MAX_LENGTH, minimum=16, default=_ANY_LENGTH)
    return said if said < _ANY_LENGTH else max(16, window)


def _layers(reader: Reader) -> tuple[str, ...]:
    count = reader.integer("num_hidden_layers", MAX_LAYERS, default=32)
    step = reader.integer("mamba_step", 2 * MAX_LAYERS, minimum=2, default=2)
    if not reader.flag("mamba_enabled", True):
        raise reader.fail("mamba_enabled", "is false: a model without Mamba layers is not supported")
    full = reader.raw.get("full_attention_idx") or []
    if not isinstance(full, list | tuple) or not all(type(index) is int and 0 <= index < count for index in full):
        raise reader.fail("full_attention_idx", f"must list layers from 0 to {count - 1}, not {shown(full)}")
    attends = {count - 1} if count <= step // 2 else set(range(step // 2, count, step))
    kinds = (ATTENTION if index in full else WINDOWED for index in range(count))
    return tuple(kind if index in attends else MAMBA for index, kind in enumerate(kinds))


def _attention(reader: Reader, head_dim: int, window: int) -> AttentionConfig:
    heads = reader.integer("num_attention_heads", readers.MAX_HEADS, default=32)
    kv_heads = reader.integer("num_key_value_heads", readers.MAX_HEADS, default=4)
    if heads % kv_heads:
        raise reader.fail("num_key_value_heads", f"is {kv_heads}, which does not divide {heads} heads")
    if heads * head_dim > MAX_WIDTH:
        raise reader.fail("hidden_size_per_head", f"makes attention {heads * head_dim} wide, more than {MAX_WIDTH}")
    return AttentionConfig(
        n_heads=heads,
        n_kv_heads=kv_heads,
        head_dim=head_dim,
        scale=head_dim**-0.5,
        rope=readers.rope_config(reader, head_dim),
        own_window=window + 1,  # beside so many tokens before it, a token sees itself
    )
