"""A model's config.json, read from untrusted JSON into one frozen, bounded `ModelConfig`.

Three dialects are understood: transformers 4 and 5 (`mamba`, `falcon_mamba`, `mamba2`; 5 writes infinity
as `{"__float__": "Infinity"}`) and the original mamba_ssm files (`d_model`, `n_layer`, `ssm_cfg`). Every
number is checked against a bound before anything is allocated from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from longmamba_mlx.boundedjson import Reader, read_json, shown
from longmamba_mlx.errors import ConfigError

__all__ = ["MODEL_TYPES", "ModelConfig", "parse_config", "read_json"]

MODEL_TYPES = ("mamba", "falcon_mamba", "mamba2")

# Bounds on what a real model can hold. They are generous: their job is to stop a hostile or broken file.
_MAX_WIDTH = 1 << 18
_MAX_VOCABULARY = 1 << 22
_MAX_LAYERS = 1024
_MAX_STATE = 2048
_MAX_CONV = 16
_MAX_LENGTH = 1 << 26
_MAX_PARAMETERS = 1 << 40


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes and options of one Mamba language model, all checked.

    `d_inner` is the width inside the mixer; a *unit* is a channel (Mamba-1) or a head (Mamba-2).
    """

    model_type: str
    vocab_size: int
    d_model: int
    n_layer: int
    d_inner: int
    d_state: int
    d_conv: int
    dt_rank: int = 0
    n_heads: int = 0
    headdim: int = 0
    n_groups: int = 1
    chunk_size: int = 64
    time_step_limit: tuple[float, float] = (0.0, math.inf)
    norm_eps: float = 1e-5
    mixer_rms_eps: float | None = None
    use_bias: bool = False
    use_conv_bias: bool = True
    tie_embeddings: bool = True
    norm_before_gate: bool = False
    training_length: int = 2048
    eos_token_ids: tuple[int, ...] = ()

    @property
    def is_mamba1(self) -> bool:
        """True for `mamba` and `falcon_mamba`, whose step size is per channel."""
        return self.model_type != "mamba2"

    @property
    def units(self) -> int:
        """Number of units with a step size of their own: `d_inner` channels or `n_heads` heads."""
        return self.d_inner if self.is_mamba1 else self.n_heads

    @property
    def conv_dim(self) -> int:
        """Channels that pass through the causal convolution: x alone, or x, B and C together (Mamba-2)."""
        return self.d_inner if self.is_mamba1 else self.d_inner + 2 * self.n_groups * self.d_state


def parse_config(raw: Mapping[str, object]) -> ModelConfig:
    """Check a config.json of any known dialect and return the one form the package works with.

    Raises ConfigError, naming the key, for anything missing, of the wrong kind, out of bounds or unsupported.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError("the model's config is not a JSON object")
    reader = Reader(raw)
    model_type = raw.get("model_type")
    if model_type is None and ("ssm_cfg" in raw or "d_model" in raw):
        config = _parse_original(reader)
    elif model_type in ("mamba", "falcon_mamba"):
        config = _parse_mamba1(reader, str(model_type))
    elif model_type == "mamba2":
        config = _parse_mamba2(reader)
    else:
        raise ConfigError(
            f"config key 'model_type' is {shown(model_type)}, which is not supported",
            hint=f"supported: {', '.join(MODEL_TYPES)} and original mamba_ssm checkpoints",
        )
    _check_sizes(reader, config)
    return config


def _parse_mamba1(reader: Reader, model_type: str) -> ModelConfig:
    _refuse_activation(reader)
    d_model = reader.integer("hidden_size", _MAX_WIDTH)
    d_inner = reader.integer("intermediate_size", _MAX_WIDTH, default=_expanded(reader, "expand", d_model))
    vocab_size = reader.integer("vocab_size", _MAX_VOCABULARY)
    falcon = model_type == "falcon_mamba"
    return ModelConfig(
        model_type=model_type,
        vocab_size=vocab_size,
        d_model=d_model,
        n_layer=reader.integer("num_hidden_layers", _MAX_LAYERS),
        d_inner=d_inner,
        d_state=reader.integer("state_size", _MAX_STATE, default=16),
        d_conv=reader.integer("conv_kernel", _MAX_CONV, minimum=2, default=4),
        dt_rank=_dt_rank(reader, "time_step_rank", d_model),
        norm_eps=reader.number("layer_norm_epsilon", 1e-12, 1.0, 1e-5),
        # The class's default in transformers, for files that leave it out.
        mixer_rms_eps=reader.number("mixer_rms_eps", 1e-12, 1.0, 1e-6) if falcon else None,
        use_bias=reader.flag("use_bias", False),
        use_conv_bias=reader.flag("use_conv_bias", True),
        tie_embeddings=reader.flag("tie_word_embeddings", True),
        training_length=_training_length(reader),
        eos_token_ids=reader.token_ids("eos_token_id", vocab_size),
    )


def _parse_mamba2(reader: Reader) -> ModelConfig:
    _refuse_activation(reader)
    d_model = reader.integer("hidden_size", _MAX_WIDTH)
    vocab_size = reader.integer("vocab_size", _MAX_VOCABULARY)
    n_heads = reader.integer("num_heads", _MAX_WIDTH, default=128)
    headdim = reader.integer("head_dim", _MAX_WIDTH, default=64)
    # transformers 5 writes no intermediate_size; other tools leave out expand.
    d_inner = _expanded(reader, "expand", d_model) if reader.has("expand") else n_heads * headdim
    return ModelConfig(
        model_type="mamba2",
        vocab_size=vocab_size,
        d_model=d_model,
        n_layer=reader.integer("num_hidden_layers", _MAX_LAYERS),
        d_inner=reader.integer("intermediate_size", _MAX_WIDTH, default=d_inner),
        d_state=reader.integer("state_size", _MAX_STATE, default=128),
        d_conv=reader.integer("conv_kernel", _MAX_CONV, minimum=2, default=4),
        n_heads=n_heads,
        headdim=headdim,
        n_groups=reader.integer("n_groups", _MAX_WIDTH, default=8),
        chunk_size=reader.integer("chunk_size", 1 << 16, default=256),
        time_step_limit=reader.limits("time_step_limit"),
        norm_eps=reader.number("layer_norm_epsilon", 1e-12, 1.0, 1e-5),
        use_bias=reader.flag("use_bias", False),
        use_conv_bias=reader.flag("use_conv_bias", True),
        tie_embeddings=reader.flag("tie_word_embeddings", False),
        # transformers' own files may say `norm_before_gate: true` while its code always gates first, so that
        # key is not read here; this one our converter writes for originals trained the other way.
        norm_before_gate=reader.flag("mamba_norm_before_gate", False),
        training_length=_training_length(reader),
        eos_token_ids=reader.token_ids("eos_token_id", vocab_size),
    )


def _parse_original(reader: Reader) -> ModelConfig:
    """mamba_ssm's own files: sizes at the top, what the layer's constructor was given in `ssm_cfg`."""
    ssm = reader.table("ssm_cfg")
    layer = ssm.raw.get("layer", "Mamba1")
    if layer not in ("Mamba1", "Mamba2"):
        raise ssm.fail("layer", f"is {shown(layer)}, which is not supported")
    _refuse_original_options(reader, ssm)
    d_model = reader.integer("d_model", _MAX_WIDTH)
    mamba2 = layer == "Mamba2"
    multiple = reader.integer("pad_vocab_size_multiple", 1 << 16, default=8)
    vocab_size = -(-reader.integer("vocab_size", _MAX_VOCABULARY) // multiple) * multiple
    d_inner = _expanded(ssm, "expand", d_model)
    headdim = ssm.integer("headdim", _MAX_WIDTH, default=64) if mamba2 else 0
    if mamba2 and d_inner % headdim:
        raise ssm.fail("headdim", f"is {headdim}, which does not divide the inner width {d_inner}")
    return ModelConfig(
        model_type="mamba2" if mamba2 else "mamba",
        vocab_size=vocab_size,
        d_model=d_model,
        n_layer=reader.integer("n_layer", _MAX_LAYERS),
        d_inner=d_inner,
        d_state=ssm.integer("d_state", _MAX_STATE, default=128 if mamba2 else 16),
        d_conv=ssm.integer("d_conv", _MAX_CONV, minimum=2, default=4),
        dt_rank=0 if mamba2 else _dt_rank(ssm, "dt_rank", d_model),
        n_heads=d_inner // headdim if mamba2 else 0,
        headdim=headdim,
        n_groups=ssm.integer("ngroups", _MAX_WIDTH, default=1) if mamba2 else 1,
        chunk_size=ssm.integer("chunk_size", 1 << 16, default=256) if mamba2 else 64,
        time_step_limit=ssm.limits("dt_limit") if mamba2 else (0.0, math.inf),
        norm_eps=reader.number("norm_epsilon", 1e-12, 1.0, 1e-5),
        use_bias=ssm.flag("bias", False),
        use_conv_bias=ssm.flag("conv_bias", True),
        tie_embeddings=reader.flag("tie_embeddings", True),
        norm_before_gate=ssm.flag("norm_before_gate", False) if mamba2 else False,
        training_length=_training_length(reader),
        eos_token_ids=reader.token_ids("eos_token_id", vocab_size),
    )


def _refuse_original_options(reader: Reader, ssm: Reader) -> None:
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


def _refuse_activation(reader: Reader) -> None:
    activation = reader.raw.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise reader.fail("hidden_act", f"is {shown(activation)}; only silu is supported")


def _expanded(reader: Reader, key: str, d_model: int) -> int:
    factor = reader.number(key, 1.0 / 64, 64.0, 2.0)
    return int(factor * d_model)


def _dt_rank(reader: Reader, key: str, d_model: int) -> int:
    automatic = -(-d_model // 16)
    if reader.raw.get(key) == "auto":
        return automatic
    return reader.integer(key, _MAX_WIDTH, default=automatic)


def _training_length(reader: Reader) -> int:
    return reader.table("longmamba").integer("training_length", _MAX_LENGTH, minimum=16, default=2048)


def _check_sizes(reader: Reader, config: ModelConfig) -> None:
    """Sizes that must agree with each other, and a bound on their product."""
    if not 1 <= config.d_inner <= _MAX_WIDTH:
        raise reader.fail("expand", f"makes an inner width of {config.d_inner}, outside 1 to {_MAX_WIDTH}")
    if not config.is_mamba1:
        if config.n_heads * config.headdim != config.d_inner:
            raise reader.fail(
                "num_heads", f"{config.n_heads} x {config.headdim} is not the inner width {config.d_inner}"
            )
        for what, width in (("heads", config.n_heads), ("inner channels", config.d_inner)):
            if width % config.n_groups:
                raise reader.fail("n_groups", f"is {config.n_groups}, which does not divide {width} {what}")
    mixer = config.d_model * (3 * config.d_inner + config.conv_dim) + config.d_inner * config.d_state
    if config.n_layer * mixer + config.vocab_size * config.d_model > _MAX_PARAMETERS:
        raise reader.fail("num_hidden_layers", f"and the widths make more than {_MAX_PARAMETERS:,} parameters")
