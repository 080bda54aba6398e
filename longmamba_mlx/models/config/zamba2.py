"""Zamba2: Mamba-2 layers, some preceded by a shared transformer block."""

from __future__ import annotations

import math
from dataclasses import replace

from longmamba_mlx.models.config import readers
from longmamba_mlx.models.config.base import MAX_CONV, MAX_LAYERS, MAX_STATE, MAX_WIDTH, ModelConfig
from longmamba_mlx.models.config.hybrid import BOTH, MAMBA, AttentionConfig, HybridConfig, SharedConfig
from longmamba_mlx.storage.json_config import Reader, shown

_ACTIVATIONS = {"gelu": "gelu", "silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
# The mixers' gated norm has its own epsilon, whatever the config says of the others.
_GATED_NORM_EPS = 1e-5
# By how much release 4 of transformers stretched the positions of a model with `use_long_context`.
_LONGER = 8.0
# Adapters in all blocks together; real models have a dozen.
_MAX_ADAPTERS = 1 << 13
# Zamba2-2.7B's layers, which a file without a list of layers means.
_USUAL = (*(0,) * 6, 1, *((*(0,) * 5, 1) * 6), *(0,) * 4, 1, *(0,) * 3, 1, 0, 0)


def parse(reader: Reader) -> ModelConfig:
    """A Zamba2 config.json. Raises ConfigError."""
    d_model = reader.integer("hidden_size", MAX_WIDTH // 2)
    vocab_size = readers.vocabulary(reader)
    layers = _layers(reader)
    d_inner, heads, groups = _mixer_sizes(reader, d_model)
    return ModelConfig(
        model_type="zamba2",
        vocab_size=vocab_size,
        d_model=d_model,
        n_layer=len(layers),
        d_inner=d_inner,
        n_heads=heads,
        headdim=d_inner // heads,
        n_groups=groups,
        d_state=reader.integer("mamba_d_state", MAX_STATE, default=64),
        d_conv=reader.integer("mamba_d_conv", MAX_CONV, minimum=2, default=4),
        chunk_size=reader.integer("chunk_size", 1 << 16, default=256),
        time_step_limit=_step_limit(reader),
        norm_eps=reader.number("rms_norm_eps", 1e-12, 1.0, 1e-5),
        mixer_rms_eps=_GATED_NORM_EPS,
        use_bias=reader.flag("add_bias_linear", False),
        tie_embeddings=reader.flag("tie_word_embeddings", True),
        training_length=readers.training_length(reader, 4096),
        eos_token_ids=reader.token_ids("eos_token_id", vocab_size),
        hybrid=HybridConfig(
            layers=layers,
            attention=_attention(reader, d_model),
            d_ff=reader.integer("intermediate_size", MAX_WIDTH, default=min(4 * d_model, MAX_WIDTH)),
            ff_bias=reader.flag("add_bias_linear", False),
            out_bias=reader.flag("add_bias_linear", False),
            shared=_shared(reader, layers.count(BOTH)),
        ),
    )


def _layers(reader: Reader) -> tuple[str, ...]:
    n_layer = reader.integer("num_hidden_layers", MAX_LAYERS)
    layers = readers.layer_kinds(reader, ("layers_block_type", "layer_types"), (MAMBA, BOTH))
    if layers is None and n_layer == len(_USUAL):
        layers = tuple(BOTH if attends else MAMBA for attends in _USUAL)
    if layers is None:
        raise reader.fail("layers_block_type", "is missing")
    if len(layers) != n_layer:
        raise reader.fail("num_hidden_layers", f"is {n_layer}, but layers_block_type lists {len(layers)}")
    given, found = reader.raw.get("hybrid_layer_ids"), [i for i, kind in enumerate(layers) if kind == BOTH]
    if given is not None and given != found:
        raise reader.fail("hybrid_layer_ids", "does not name the hybrid layers of layers_block_type")
    return layers


def _mixer_sizes(reader: Reader, d_model: int) -> tuple[int, int, int]:
    """Inner width, heads and groups of the Mamba mixers."""
    d_inner = int(reader.number("mamba_expand", 1.0 / 64, 64.0, 2.0) * d_model)
    heads = reader.integer("n_mamba_heads", MAX_WIDTH, default=8)
    groups = reader.integer("mamba_ngroups", MAX_WIDTH, default=1)
    if not 1 <= d_inner <= MAX_WIDTH:
        raise reader.fail("mamba_expand", f"makes an inner width of {d_inner}, outside 1 to {MAX_WIDTH}")
    if d_inner % heads:
        raise reader.fail("n_mamba_heads", f"is {heads}, which does not divide the inner width {d_inner}")
    if heads % groups:
        raise reader.fail("mamba_ngroups", f"is {groups}, which does not divide {heads} heads")
    derived(reader, "mamba_headdim", d_inner // heads)
    return d_inner, heads, groups


def _attention(reader: Reader, d_model: int) -> AttentionConfig:
    """Attention over hidden and first embedding together, so twice as wide as the model."""
    heads, head_dim = attention_heads(reader, 2 * d_model, default=32)
    turns = reader.flag("use_mem_rope", False)
    attention = readers.attention(reader, 2 * d_model, scale=(head_dim / 2) ** -0.5, rope=turns)
    if reader.flag("use_shared_attention_adapter", False) and attention.n_kv_heads != heads:
        raise reader.fail("num_key_value_heads", f"is {attention.n_kv_heads}, but attention adapters need {heads}")
    rope = attention.rope
    if rope is None or reader.has("rope_parameters") or not reader.flag("use_long_context", False) or head_dim <= 2:
        return attention
    # transformers 5 writes the base that it uses; release 4 stretched the one in its file.
    return replace(attention, rope=replace(rope, theta=rope.theta * _LONGER ** (head_dim / (head_dim - 2))))


def attention_heads(reader: Reader, width: int, *, default: int) -> tuple[int, int]:
    """Heads and head_dim of attention over `width` channels, twice the model's. Raises ConfigError."""
    heads = reader.integer("num_attention_heads", readers.MAX_HEADS, default=default)
    if width % heads:
        raise reader.fail("num_attention_heads", f"is {heads}, which does not divide the attention's width {width}")
    head_dim = width // heads
    for key, size in (("attention_head_dim", head_dim), ("head_dim", head_dim), ("attention_hidden_size", width)):
        derived(reader, key, size)
    return heads, head_dim


def derived(reader: Reader, key: str, value: int) -> None:
    """Raise ConfigError where the file holds another number for what follows from others."""
    if reader.has(key) and reader.integer(key, MAX_WIDTH) != value:
        raise reader.fail(key, f"is {shown(reader.raw[key])}, but the other sizes make it {value}")


def _step_limit(reader: Reader) -> tuple[float, float]:
    """`time_step_limit` where the file has that key, null (no limit) included, as the published files have.

    transformers 5 knows no such key and never lets a prefill's steps below `time_step_min`.
    """
    if "time_step_limit" in reader.raw:
        return reader.limits("time_step_limit")
    return (reader.number("time_step_min", 0.0, 1e6, 0.001), math.inf)


def activation(reader: Reader) -> str:
    """The activation function of the shared blocks' MLPs. Raises ConfigError."""
    given = reader.raw.get("hidden_act", "gelu")
    name = _ACTIVATIONS.get(given) if isinstance(given, str) else None
    if name is None:
        raise reader.fail("hidden_act", f"is {shown(given)}; supported: {', '.join(_ACTIVATIONS)}")
    return name


def _shared(reader: Reader, hybrids: int) -> SharedConfig:
    blocks = reader.integer("num_mem_blocks", MAX_LAYERS, default=1)
    # Untied, every hybrid layer has its block's adapters for all layers that use it.
    if not reader.flag("tie_word_embeddings", True) and hybrids * hybrids > _MAX_ADAPTERS * blocks:
        raise reader.fail("layers_block_type", f"has {hybrids} hybrid layers on {blocks} blocks that are not tied")
    return SharedConfig(
        blocks=blocks,
        rank=reader.integer("adapter_rank", MAX_WIDTH, default=128),
        adapted_attention=reader.flag("use_shared_attention_adapter", False),
        activation=activation(reader),
    )
