"""The one frozen configuration of a model, the bounds on its numbers, and what all parsers share."""

from __future__ import annotations

import math
from dataclasses import dataclass

from longmamba_mlx.models.config.hybrid import HybridConfig
from longmamba_mlx.storage.json_config import Reader, shown

# Bounds on what a real model can hold. They are generous: their job is to stop a hostile or broken file.
MAX_WIDTH = 1 << 18
MAX_VOCABULARY = 1 << 22
MAX_LAYERS = 1024
MAX_STATE = 2048
MAX_CONV = 16
MAX_LENGTH = 1 << 26
MAX_PARAMETERS = 1 << 40


@dataclass(frozen=True, slots=True)
class Mamba3Config:
    """What Mamba-3 has beside Mamba-2's sizes.

    `angles`: pairs of state dimensions that turn; `mimo`, `rank`: keys, values and queries of a head for each token (1
    without MIMO); `decay_floor`: the least |A|; `gated_norm`: whether the scan's output is normed per head, not only
    gated; `d_ff`: inner width of the MLP after each mixer (0: none).
    """

    angles: int
    mimo: bool = False
    rank: int = 1
    decay_floor: float = 1e-4
    gated_norm: bool = False
    d_ff: int = 0


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes and options of one language model, all checked.

    `d_inner` is the width inside the mixer; a *unit* is a channel (Mamba-1) or a head (Mamba-2, Mamba-3). `hybrid`
    holds what models with attention or MLP layers add, None for pure Mamba; `mamba3` what Mamba-3 adds, None for the
    others.
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
    hybrid: HybridConfig | None = None
    mamba3: Mamba3Config | None = None

    @property
    def is_mamba1(self) -> bool:
        """True where the mixers are Mamba-1's, whose dt is per channel."""
        return self.n_heads == 0

    @property
    def units(self) -> int:
        """Number of units with a dt of their own: `d_inner` channels or `n_heads` heads."""
        return self.d_inner if self.is_mamba1 else self.n_heads

    @property
    def conv_dim(self) -> int:
        """Channels that pass through the causal convolution: x alone, or x, B and C together (Mamba-2)."""
        return self.d_inner if self.is_mamba1 else self.d_inner + 2 * self.n_groups * self.d_state

    @property
    def parts(self) -> HybridConfig:
        """`hybrid`, for code that only hybrid models run. Raises ValueError for pure Mamba."""
        if self.hybrid is None:
            raise ValueError(f"{self.model_type} is not a hybrid model")
        return self.hybrid

    @property
    def turning(self) -> Mamba3Config:
        """`mamba3`, for code that only Mamba-3 runs. Raises ValueError for other models."""
        if self.mamba3 is None:
            raise ValueError(f"{self.model_type} is not a Mamba-3 model")
        return self.mamba3


def refuse_activation(reader: Reader, key: str = "hidden_act", allowed: tuple[str, ...] = ("silu", "swish")) -> None:
    """Raise ConfigError for an activation function that is not the family's own."""
    activation = reader.raw.get(key, allowed[0])
    if activation not in allowed:
        raise reader.fail(key, f"is {shown(activation)}; only {allowed[0]} is supported")


def expanded(reader: Reader, key: str, d_model: int) -> int:
    """The inner width that an expansion factor makes."""
    factor = reader.number(key, 1.0 / 64, 64.0, 2.0)
    return int(factor * d_model)


def dt_rank(reader: Reader, key: str, d_model: int) -> int:
    """Mamba-1's rank of dt; "auto" is a sixteenth of the width, rounded up."""
    automatic = -(-d_model // 16)
    if reader.raw.get(key) == "auto":
        return automatic
    return reader.integer(key, MAX_WIDTH, default=automatic)


def training_length(reader: Reader, default: int = 2048) -> int:
    """The `longmamba` block's own training length, else `default`."""
    return reader.table("longmamba").integer("training_length", MAX_LENGTH, minimum=16, default=default)


def check_sizes(reader: Reader, config: ModelConfig) -> None:
    """Sizes that must agree with each other, and a bound on their product. Raises ConfigError."""
    if not 1 <= config.d_inner <= MAX_WIDTH:
        raise reader.fail("expand", f"makes an inner width of {config.d_inner}, outside 1 to {MAX_WIDTH}")
    if not config.is_mamba1:
        if config.n_heads * config.headdim != config.d_inner:
            raise reader.fail(
                "num_heads", f"{config.n_heads} x {config.headdim} is not the inner width {config.d_inner}"
            )
        for what, width in (("heads", config.n_heads), ("inner channels", config.d_inner)):
            if width % config.n_groups:
                raise reader.fail("n_groups", f"is {config.n_groups}, which does not divide {width} {what}")
    per_layer = config.d_model * (3 * config.d_inner + config.conv_dim) + config.d_inner * config.d_state
    if config.hybrid is not None:
        per_layer += config.hybrid.parameters_per_layer(config.d_model)
    if config.mamba3 is not None:
        projections = 2 * config.n_groups * config.d_state * (config.mamba3.rank - 1)
        per_layer += config.d_model * (projections + 3 * config.mamba3.d_ff)
        per_layer += (2 * config.d_state * config.n_heads + 3 * config.d_inner) * config.mamba3.rank
    if config.n_layer * per_layer + config.vocab_size * config.d_model > MAX_PARAMETERS:
        raise reader.fail("num_hidden_layers", f"and the widths make more than {MAX_PARAMETERS:,} parameters")
