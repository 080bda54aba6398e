"""Mamba-2 (arXiv 2405.21060), with any number of B/C groups."""

from __future__ import annotations

from collections.abc import Mapping

import mlx.core as mx
import mlx.nn as nn

from longmamba_mlx.models.attention import ConvAttention
from longmamba_mlx.models.base import Block, LanguageModel, Layer
from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.models.config.hybrid import ATTENTION
from longmamba_mlx.models.mixer import DepthwiseConv, ScanMixer
from longmamba_mlx.models.state import LayerState, require
from longmamba_mlx.ops.inputs import ScanInputs, unpacked


class GatedNorm(nn.Module):
    """Parameters of the gated RMS norm: weight (d_inner,)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = mx.ones((width,))


class Mamba2Mixer(ScanMixer):
    """in_proj -> conv over x, B, C -> scan -> gated norm -> out_proj. One dt for each head.

    `gated_norm`: whether the scan's output is normed at all, not only gated; `out_bias`: of out_proj, where it is not
    the config's `use_bias`; `multipliers`: what z, x, B, C and dt are multiplied with after in_proj (Falcon-H1).
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        gated_norm: bool = True,
        out_bias: bool | None = None,
        multipliers: tuple[float, float, float, float, float] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        width = config.d_inner + config.conv_dim + config.n_heads
        self.in_proj = nn.Linear(config.d_model, width, bias=config.use_bias)
        self.conv1d = DepthwiseConv(config.conv_dim, config.d_conv, config.use_conv_bias)
        self.A_log = mx.log(mx.arange(1, config.n_heads + 1, dtype=mx.float32))
        self.D = mx.ones((config.n_heads,))
        self.dt_bias = mx.zeros((config.n_heads,))
        if gated_norm:
            self.norm = GatedNorm(config.d_inner)
        out_bias = config.use_bias if out_bias is None else out_bias
        self.out_proj = nn.Linear(config.d_inner, config.d_model, bias=out_bias)
        self._scales = None if multipliers is None else spread(config, multipliers)

    @property
    def is_plain(self) -> bool:
        return "norm" in self and self._scales is None

    @property
    def gated(self) -> bool:
        return "norm" not in self

    def state_shape(self) -> tuple[int, ...]:
        return (self.config.n_heads, self.config.headdim, self.config.d_state)

    def mix(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        config = self.config
        z, x_b_c, dt = self._split(hidden)
        weight, bias = self.conv1d.parts()
        x_b_c, window = self.ops().causal_conv1d(x_b_c, weight, bias, state.conv)
        group_width = config.n_groups * config.d_state
        x, B, C = mx.split(x_b_c, [config.d_inner, config.d_inner + group_width], axis=-1)
        lead = hidden.shape[:2]
        inputs = ScanInputs(
            x.reshape(*lead, config.n_heads, config.headdim),
            dt,
            self.A(),
            self.written(B).reshape(*lead, config.n_groups, config.d_state),
            C.reshape(*lead, config.n_groups, config.d_state),
            D=self.D,
            z=None if "norm" in self else z.reshape(*lead, config.n_heads, config.headdim),
            dt_bias=self.dt_bias,
            threshold=threshold,
            initial_state=state.ssm,
            time_step_limit=config.time_step_limit,
            return_kept=return_kept,
        )
        y, ssm, kept = unpacked(self.ops().ssd_scan(inputs))
        y = y.reshape(*lead, config.d_inner)
        y = self._normed(y, z) if "norm" in self else y
        return self.out_proj(y), LayerState(conv=window, ssm=ssm), kept

    def raw(self, hidden: mx.array, state: LayerState) -> tuple[mx.array, LayerState]:
        _, x_b_c, dt = self._split(hidden)
        window = advanced(require(state.conv), x_b_c)  # dt does not pass through the convolution
        raw = dt.astype(mx.float32) + self.dt_bias.astype(mx.float32)
        return raw, LayerState(conv=window, ssm=state.ssm)

    def _normed(self, y: mx.array, z: mx.array) -> mx.array:
        """The scan's output (b, l, d_inner), gated by z and normed. Without a norm the scan itself gates."""
        config = self.config
        return self.ops().gated_rms_norm(
            y,
            z,
            self.norm.weight,
            groups=config.n_groups,
            eps=config.norm_eps if config.mixer_rms_eps is None else config.mixer_rms_eps,
            norm_before_gate=config.norm_before_gate,
        )

    def _split(self, hidden: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """The gate z (b, l, d_inner), x, B and C before the convolution, and dt (b, l, h)."""
        config = self.config
        projected = self.in_proj(hidden)
        kind = projected.dtype
        if self._scales is not None:
            projected = projected.astype(mx.float32) * self._scales  # and dt stays float32: the filter compares it
        z, x_b_c, dt = mx.split(projected, [config.d_inner, config.d_inner + config.conv_dim], axis=-1)
        return z.astype(kind), x_b_c.astype(kind), dt


def advanced(window: mx.array, inputs: mx.array) -> mx.array:
    """The window (b, k - 1, c) of the convolution after further inputs (b, l, c)."""
    before = window.shape[1]
    joined = mx.concatenate([window, inputs[:, -before:].astype(window.dtype)], axis=1)
    return mx.take(joined, mx.arange(joined.shape[1] - before, joined.shape[1]), axis=1)


def spread(config: ModelConfig, multipliers: tuple[float, ...]) -> mx.array:
    """One multiplier for each output of in_proj: those of z, x, B, C and dt, in this order."""
    group_width = config.n_groups * config.d_state
    widths = (config.d_inner, config.d_inner, group_width, group_width, config.n_heads)
    return mx.concatenate([mx.full((width,), value) for width, value in zip(widths, multipliers, strict=True)])


class Mamba2(LanguageModel):
    """Mamba-2 language model (`mamba2`, Codestral-Mamba included), with attention in some layers or without."""

    @classmethod
    def make_layer(cls, config: ModelConfig, index: int) -> Layer:
        if config.hybrid is not None and config.hybrid.layers[index] == ATTENTION:
            return Block(config, ConvAttention(config.parts.attends, config.d_model))
        return Block(config, Mamba2Mixer(config))

    def sanitize(self, weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """mamba_ssm's own files can be loaded without a conversion, but for the name of the embedding."""
        own = {name.replace("backbone.embedding.", "backbone.embeddings."): array for name, array in weights.items()}
        return super().sanitize(own)
