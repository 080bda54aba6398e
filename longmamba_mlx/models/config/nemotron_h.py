"""Nemotron-H (arXiv 2504.03624): layers of Mamba-2, attention, MLP or experts, each on its own."""

from __future__ import annotations

from longmamba_mlx.models.config import readers
from longmamba_mlx.models.config.base import MAX_CONV, MAX_LAYERS, MAX_STATE, MAX_WIDTH, ModelConfig, refuse_activation
from longmamba_mlx.models.config.granite import MAX_EXPERTS
from longmamba_mlx.models.config.hybrid import (
    ATTENTION,
    EXPERTS,
    MAMBA,
    MLP,
    AttentionConfig,
    ExpertsConfig,
    HybridConfig,
)
from longmamba_mlx.storage.json_config import Reader, shown

_LETTERS = {"M": MAMBA, "*": ATTENTION, "-": MLP, "E": EXPERTS}


def parse(reader: Reader) -> ModelConfig:
    """A Nemotron-H config.json. Raises ConfigError."""
    refuse_activation(reader, "mamba_hidden_act")
    refuse_activation(reader, "mlp_hidden_act", ("relu2",))
    d_model = reader.integer("hidden_size", MAX_WIDTH)
    heads = reader.integer("mamba_num_heads", MAX_WIDTH, default=128)
    headdim = reader.integer("mamba_head_dim", MAX_WIDTH, default=64)
    vocab_size = readers.vocabulary(reader)
    layers = _layers(reader)
    return ModelConfig(
        model_type="nemotron_h",
        vocab_size=vocab_size,
        d_model=d_model,
        n_layer=len(layers),
        d_inner=heads * headdim,
        d_state=reader.integer("ssm_state_size", MAX_STATE, default=128),
        d_conv=_older(reader, "conv_kernel", "mamba_d_conv", MAX_CONV, 4),
        n_heads=heads,
        headdim=headdim,
        n_groups=_older(reader, "n_groups", "mamba_n_groups", MAX_WIDTH, 8),
        chunk_size=_older(reader, "chunk_size", "mamba_chunk_size", 1 << 16, 128),
        # Not time_step_min: that is where training drew dt_bias from, and no clamp on what the model computes.
        time_step_limit=reader.limits("mamba_dt_limit" if reader.has("mamba_dt_limit") else "time_step_limit"),
        norm_eps=reader.number("layer_norm_epsilon", 1e-12, 1.0, 1e-5),
        use_bias=reader.flag("use_bias", False),
        use_conv_bias=reader.flag("use_conv_bias", reader.flag("mamba_conv_bias", True)),
        tie_embeddings=False,  # the head is its own in every checkpoint, whatever tie_word_embeddings says
        training_length=readers.training_length(reader, 4096),
        eos_token_ids=reader.token_ids("eos_token_id", vocab_size),
        hybrid=HybridConfig(
            layers=layers,
            attention=_attention(reader, d_model) if ATTENTION in layers else None,
            d_ff=reader.integer("intermediate_size", MAX_WIDTH) if MLP in layers else 0,
            ff_bias=reader.flag("mlp_bias", False),
            experts=_experts(reader) if EXPERTS in layers else None,
            out_bias=reader.flag("use_bias", False),
        ),
    )


def _layers(reader: Reader) -> tuple[str, ...]:
    """The layers' kinds: a list of names, or a pattern of letters such as "M-M*-" (transformers 4)."""
    listed = readers.layer_kinds(reader, ("layers_block_type", "layer_types"), tuple(_LETTERS.values()))
    if listed is not None:
        return listed
    pattern = reader.raw.get("hybrid_override_pattern")
    letters = pattern if isinstance(pattern, str | list) else ""
    if not 1 <= len(letters) <= MAX_LAYERS or any(letter not in list(_LETTERS) for letter in letters):
        raise reader.fail("hybrid_override_pattern", f"must be made of {' '.join(_LETTERS)}, not {shown(pattern)}")
    return tuple(_LETTERS[letter] for letter in letters)


def _attention(reader: Reader, d_model: int) -> AttentionConfig:
    """Attention without positions; heads are 128 wide where no key says otherwise."""
    key = "attention_head_dim" if reader.has("attention_head_dim") and not reader.has("head_dim") else "head_dim"
    said = reader.integer(key, MAX_WIDTH, default=128)
    return readers.attention(Reader({**reader.raw, "head_dim": said}), d_model, rope=False)


def _older(reader: Reader, key: str, old: str, maximum: int, default: int) -> int:
    """A whole number under its present key or the one of older files."""
    key = old if reader.has(old) and not reader.has(key) else key
    return reader.integer(key, maximum, minimum=2 if key in ("conv_kernel", "mamba_d_conv") else 1, default=default)


def _experts(reader: Reader) -> ExpertsConfig:
    count = reader.integer("n_routed_experts", MAX_EXPERTS)
    groups = reader.integer("n_group", count, default=1)
    if count % groups:
        raise reader.fail("n_group", f"is {groups}, which does not divide {count} experts")
    shared = reader.integer("n_shared_experts", 64, minimum=0, default=1)
    return ExpertsConfig(
        count=count,
        per_token=reader.integer("num_experts_per_tok", count, default=min(2, count)),
        width=reader.integer("moe_intermediate_size", MAX_WIDTH),
        shared=reader.integer("moe_shared_expert_intermediate_size", MAX_WIDTH) if shared else 0,
        groups=groups,
        top_groups=reader.integer("topk_group", groups, default=1),
        normalised=reader.flag("norm_topk_prob", True),
        scaling=readers.factor(reader, "routed_scaling_factor"),
        latent=reader.integer("moe_latent_size", MAX_WIDTH, default=0, minimum=0),
    )
