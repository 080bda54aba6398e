"""What models with attention, MLP or expert layers add to a Mamba configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST = 4
"""Tokens at the start that attention goes on seeing where a window is put on it: without them it falls apart
(StreamingLLM, arXiv 2309.17453; as in mlx-lm's rotating cache). Attention that was trained with a window has none."""

MAMBA, ATTENTION, WINDOWED, BOTH, MLP, EXPERTS = "mamba", "attention", "windowed", "both", "mlp", "experts"
"""Kinds of layers: one mixer (attention to all tokens, or trained with a window), a Mamba mixer beside attention, or a
feed-forward network on its own."""


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary positions: the base and how many of a head's dimensions turn."""

    theta: float
    dims: int


@dataclass(frozen=True, slots=True)
class AttentionConfig:
    """Grouped-query attention. `scale` multiplies the scores; `rope` None: no positions (NoPE); `window`: of how many
    of the latest tokens it remembers keys and values, beside the `first` ones of the text; None: of all; `own_window`:
    the window that layers of the kind WINDOWED were trained with, a token's own place included, 0: there are none;
    `conv`: taps of a convolution over queries, keys and values, 0: none."""

    n_heads: int
    n_kv_heads: int
    head_dim: int
    scale: float
    bias: bool = False
    rope: RopeConfig | None = None
    window: int | None = None
    first: int = FIRST
    own_window: int = 0
    conv: int = 0

    def of(self, kind: str) -> AttentionConfig:
        """The attention of a layer of that kind."""
        return replace(self, window=self.own_window, first=0) if kind == WINDOWED else self


@dataclass(frozen=True, slots=True)
class ExpertsConfig:
    """Routed experts, each an MLP of inner width `width`, of which a token visits `per_token`.

    `shared`: the width of the expert that every token visits, 0 for none. `groups`, `top_groups`, `normalised`,
    `scaling`: how Nemotron-H chooses. `latent`: the width experts work at, 0: the model's own.
    """

    count: int
    per_token: int
    width: int
    shared: int = 0
    groups: int = 1
    top_groups: int = 1
    normalised: bool = False
    scaling: float = 1.0
    latent: int = 0


@dataclass(frozen=True, slots=True)
class Multipliers:
    """Fixed factors on activations (Falcon-H1, Granite). `ssm`: of z, x, B, C and dt after in_proj."""

    embedding: float = 1.0
    logits: float = 1.0
    residual: float = 1.0
    key: float = 1.0
    attention_in: float = 1.0
    attention_out: float = 1.0
    ssm_in: float = 1.0
    ssm_out: float = 1.0
    ssm: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)
    gate: float = 1.0
    down: float = 1.0


@dataclass(frozen=True, slots=True)
class SharedConfig:
    """Zamba2's transformer blocks, `blocks` of them, which take turns in the layers that have one.

    `rank`: of the adapters that each such layer adds to its block's MLP and, where `adapted_attention`, to its queries,
    keys and values; `activation`: the MLP's, "gelu", "gelu_tanh" or "silu".
    """

    blocks: int
    rank: int
    adapted_attention: bool
    activation: str


@dataclass(frozen=True, slots=True)
class HybridConfig:
    """Layer kinds and everything beside the Mamba mixers; all checked.

    `layers`: the kind of each layer. `d_ff`: inner width of the MLPs (0: none). `gated_norm`: whether the Mamba-2
    mixers norm their output; `conv_activation`: whether a silu follows their convolution; `out_bias`: their out_proj's
    bias; `routed`: the layers with `experts` in place of an MLP, where not all have them; `shared`: transformer blocks
    that layers share.
    """

    layers: tuple[str, ...]
    attention: AttentionConfig | None = None
    d_ff: int = 0
    ff_bias: bool = False
    experts: ExpertsConfig | None = None
    multipliers: Multipliers = Multipliers()
    gated_norm: bool = True
    conv_activation: bool = True
    out_bias: bool = False
    routed: tuple[bool, ...] = ()
    shared: SharedConfig | None = None

    @property
    def attends(self) -> AttentionConfig:
        """`attention`, for code that only layers with attention run. Raises ValueError without one."""
        if self.attention is None:
            raise ValueError("this model has no attention")
        return self.attention

    def within(self, window: int | None) -> HybridConfig:
        """The same with attention to the last `window` tokens, but in layers that have a window of their own."""
        if self.attention is None:
            return self
        return replace(self, attention=replace(self.attention, window=window))

    def parameters_per_layer(self, d_model: int) -> int:
        """At least the parameters that a layer has beside its Mamba mixer."""
        count = 3 * d_model * self.d_ff
        if self.attention is not None:
            count += 2 * d_model * self.attention.head_dim * (self.attention.n_heads + self.attention.n_kv_heads)
        if self.experts is not None:
            count += 3 * d_model * (self.experts.count * self.experts.width + self.experts.shared)
        return count
