"""Parts of a hybrid's config.json that several families share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from longmamba_mlx.models.config.base import (
    MAX_CONV,
    MAX_LAYERS,
    MAX_LENGTH,
    MAX_STATE,
    MAX_VOCABULARY,
    MAX_WIDTH,
    refuse_activation,
)
from longmamba_mlx.models.config.base import training_length as own_training_length
from longmamba_mlx.models.config.hybrid import ATTENTION, BOTH, EXPERTS, MAMBA, MLP, AttentionConfig, RopeConfig
from longmamba_mlx.storage.json_config import Reader, shown

MAX_HEADS = 1 << 14
_MAX_THETA = 1e15
_MAX_FACTOR = 1e9

# transformers 4 and 5, and the first Zamba2 files, call the same kinds of layers differently.
_KINDS = {
    "mamba": MAMBA,
    "m": MAMBA,
    "linear_attention": MAMBA,
    "attention": ATTENTION,
    "full_attention": ATTENTION,
    "hybrid": BOTH,
    "g": BOTH,
    "mlp": MLP,
    "moe": EXPERTS,
}


def factor(reader: Reader, key: str) -> float:
    """A finite factor on activations, 1 if it is missing; 0 is one too."""
    return reader.number(key, -_MAX_FACTOR, _MAX_FACTOR, 1.0)


def factors(reader: Reader, key: str, count: int) -> tuple[float, ...]:
    """Read a list of `count` factors; all 1 if it is missing."""
    value = reader.raw.get(key)
    if value is None:
        return (1.0,) * count
    if not isinstance(value, list | tuple) or len(value) != count:
        raise reader.fail(key, f"must be {count} numbers, not {shown(value)}")
    return tuple(reader.checked_float(key, item, -_MAX_FACTOR, _MAX_FACTOR) for item in value)


def layer_kinds(reader: Reader, keys: tuple[str, ...], allowed: tuple[str, ...]) -> tuple[str, ...] | None:
    """The layers' kinds from the first of `keys` that exists, None without any of them."""
    key = next((key for key in keys if reader.has(key)), None)
    if key is None:
        return None
    value = reader.raw[key]
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_LAYERS:
        raise reader.fail(key, f"must list 1 to {MAX_LAYERS} layers, not {shown(value)}")
    kinds = []
    for name in value:
        kind = _KINDS.get(name) if isinstance(name, str) else None
        if kind not in allowed:
            raise reader.fail(key, f"names a layer {shown(name)}, which is not supported")
        kinds.append(kind)
    return tuple(kinds)


def attention(
    reader: Reader, d_model: int, *, scale: float | None = None, rope: bool = True, turned: float = 1.0
) -> AttentionConfig:
    """The usual attention keys. `scale` None: 1 / sqrt(head_dim); `turned`: share of a head that RoPE turns."""
    heads = reader.integer("num_attention_heads", MAX_HEADS)
    head_dim = reader.integer("head_dim", MAX_WIDTH, default=max(1, d_model // heads))
    kv_heads = reader.integer("num_key_value_heads", MAX_HEADS, default=heads)
    if heads % kv_heads:
        raise reader.fail("num_key_value_heads", f"is {kv_heads}, which does not divide {heads} heads")
    if heads * head_dim > MAX_WIDTH:
        raise reader.fail("head_dim", f"makes attention {heads * head_dim} wide, more than {MAX_WIDTH}")
    if reader.has("sliding_window"):
        raise reader.fail("sliding_window", "is set, which is not supported")
    return AttentionConfig(
        n_heads=heads,
        n_kv_heads=kv_heads,
        head_dim=head_dim,
        scale=head_dim**-0.5 if scale is None else scale,
        bias=reader.flag("attention_bias", False),
        rope=rope_config(reader, head_dim, turned) if rope else None,
    )


def rope_config(reader: Reader, head_dim: int, turned: float = 1.0) -> RopeConfig:
    """Plain rotary positions, of transformers 5 (`rope_parameters`) or 4 (`rope_theta`, `rope_scaling`)."""
    table = reader.table("rope_parameters") if reader.has("rope_parameters") else reader
    theta = table.number("rope_theta", 1.0, _MAX_THETA, 10_000.0)
    scaling = reader.raw.get("rope_scaling")
    kind = scaling if isinstance(scaling, Mapping) else table.raw
    name = kind.get("rope_type", kind.get("type", "default"))
    if name != "default" or not isinstance(scaling, Mapping | None):
        raise reader.fail("rope_scaling", f"asks for {shown(name)}; only plain rotary positions are supported")
    dims = int(head_dim * turned)
    if dims < 2 or dims % 2:
        raise reader.fail("head_dim", f"is {head_dim}, of which {dims} dimensions cannot turn in pairs")
    return RopeConfig(theta=theta, dims=dims)


class Common(TypedDict):
    """Fields of ModelConfig that are common to the `mamba_*` dialect."""

    vocab_size: int
    d_model: int
    n_layer: int
    d_inner: int
    n_heads: int
    headdim: int
    n_groups: int
    d_state: int
    d_conv: int
    chunk_size: int
    time_step_limit: tuple[float, float]
    norm_eps: float
    use_bias: bool
    use_conv_bias: bool
    tie_embeddings: bool
    training_length: int
    eos_token_ids: tuple[int, ...]


def common(reader: Reader, *, length: int, norm_eps: float = 1e-5) -> Common:
    """The fields common to Falcon-H1, Granite hybrids and Bamba; `length` and `norm_eps` are defaults."""
    refuse_activation(reader)
    d_model = reader.integer("hidden_size", MAX_WIDTH)
    heads = reader.integer("mamba_n_heads", MAX_WIDTH)
    d_inner = int(reader.number("mamba_expand", 1.0 / 64, 64.0, 2.0) * d_model)
    if reader.has("mamba_d_ssm"):
        d_inner = reader.integer("mamba_d_ssm", MAX_WIDTH)
    automatic = reader.raw.get("mamba_d_head", "auto") in ("auto", None)
    vocab_size = vocabulary(reader)
    return {
        "vocab_size": vocab_size,
        "d_model": d_model,
        "n_layer": reader.integer("num_hidden_layers", MAX_LAYERS),
        "d_inner": d_inner,
        "n_heads": heads,
        "headdim": max(1, d_inner // heads) if automatic else reader.integer("mamba_d_head", MAX_WIDTH),
        "n_groups": reader.integer("mamba_n_groups", MAX_WIDTH, default=1),
        "d_state": reader.integer("mamba_d_state", MAX_STATE, default=256),
        "d_conv": reader.integer("mamba_d_conv", MAX_CONV, minimum=2, default=4),
        "chunk_size": reader.integer("mamba_chunk_size", 1 << 16, default=256),
        "time_step_limit": reader.limits("time_step_limit"),
        "norm_eps": reader.number("rms_norm_eps", 1e-12, 1.0, norm_eps),
        "use_bias": reader.flag("mamba_proj_bias", False),
        "use_conv_bias": reader.flag("mamba_conv_bias", True),
        "tie_embeddings": reader.flag("tie_word_embeddings", False),
        "training_length": training_length(reader, length),
        "eos_token_ids": reader.token_ids("eos_token_id", vocab_size),
    }


def vocabulary(reader: Reader) -> int:
    """How many tokens the model knows."""
    return reader.integer("vocab_size", MAX_VOCABULARY)


def training_length(reader: Reader, usual: int = 2048) -> int:
    """The `longmamba` block's own training length, else the positions the model was trained for, else `usual`."""
    trained = reader.integer("max_position_embeddings", MAX_LENGTH, minimum=16, default=usual)
    return own_training_length(reader, trained)
