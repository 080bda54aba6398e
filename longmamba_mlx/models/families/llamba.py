"""Llamba (`llamba`): discrete Mamba-2 layers with Llama's MLPs, as in cartesia-ai/edge at 95d8276.

Discrete means that the step decides about the decay alone: h_t = exp(-dt_t) h_(t-1) + B_t x_t, with no dt before B_t.
It goes through Mamba-2's scan with A = -1 and x / dt in place of x. A filtered token has dt = 0 there, and so neither
decays the state nor writes to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.models.base import ParameterNames
from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.models.families.mamba2 import advanced
from longmamba_mlx.models.feedforward import GatedMLP
from longmamba_mlx.models.hybrid import HybridLayer, HybridModel, fed
from longmamba_mlx.models.mixer import DepthwiseConv, ScanMixer
from longmamba_mlx.models.state import LayerState, require
from longmamba_mlx.ops.activations import silu, softplus
from longmamba_mlx.ops.conv import depthwise_conv1d
from longmamba_mlx.ops.inputs import ScanInputs, unpacked

_EPS = 1e-5  # of the layers' norms, whatever the model's epsilon
_LOWEST = -60.0  # raw: exp(-softplus) is 1 there, and x / softplus is still a number


class DiscreteMamba2Mixer(ScanMixer):
    """in_proj -> conv over x, B, C -> scan -> gate -> out_proj. One decay for each head and token, no norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.d_inner + config.conv_dim + config.n_heads
        self.in_proj = nn.Linear(config.d_model, width, bias=config.use_bias)
        if not config.use_bias:
            self.z_bias = mx.zeros((config.d_inner,))
        self.conv1d = DepthwiseConv(config.conv_dim, config.d_conv, config.use_conv_bias)
        self.D = mx.ones((config.n_heads,))
        self.out_proj = nn.Linear(config.d_inner, config.d_model, bias=config.use_bias)

    @property
    def gated(self) -> bool:
        return False

    def scan_type(self) -> mx.Dtype:
        return mx.float32

    def state_shape(self) -> tuple[int, ...]:
        return (self.config.n_heads, self.config.headdim, self.config.d_state)

    def rates(self) -> NDArray[np.float32]:
        return np.ones(self.config.n_heads, np.float32)

    def A(self) -> mx.array:
        scaled: mx.array = mx.full((self.config.n_heads,), -1.0) * self.get("_decay", 1.0)
        return scaled

    def mix(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        config, lead = self.config, hidden.shape[:2]
        x_b_c, z, raw = self._split(hidden)
        weight, bias = self.conv1d.parts()
        if config.parts.conv_activation:
            x_b_c, window = self.ops().causal_conv1d(x_b_c, weight, bias, state.conv)
        else:
            x_b_c, window = depthwise_conv1d(x_b_c, weight, bias, state.conv)
        keys = config.n_groups * config.d_state
        x, B, C = mx.split(x_b_c.astype(mx.float32), [config.d_inner, config.d_inner + keys], axis=-1)
        x = x.reshape(*lead, config.n_heads, config.headdim)
        inputs = ScanInputs(
            x / softplus(raw)[..., None],
            raw,
            self.A(),
            self.written(B).reshape(*lead, config.n_groups, config.d_state),
            C.reshape(*lead, config.n_groups, config.d_state),
            threshold=threshold,
            initial_state=state.ssm,
            return_kept=return_kept,
        )
        y, ssm, kept = unpacked(self.ops().ssd_scan(inputs))
        y = y + self.D.astype(mx.float32)[:, None] * x
        y = (y.reshape(*lead, config.d_inner) * silu(z)).astype(hidden.dtype)
        return self.out_proj(y), LayerState(conv=window, ssm=ssm), kept

    def raw(self, hidden: mx.array, state: LayerState) -> tuple[mx.array, LayerState]:
        x_b_c, _, raw = self._split(hidden)
        return raw, LayerState(conv=advanced(require(state.conv), x_b_c), ssm=state.ssm)

    def _split(self, hidden: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """x, B and C before the convolution, and float32 the gate z (b, l, d_inner) and raw dt (b, l, h)."""
        config = self.config
        x_b_c, z, raw = mx.split(self.in_proj(hidden), [config.conv_dim, config.conv_dim + config.d_inner], axis=-1)
        z = z.astype(mx.float32) + (self.z_bias.astype(mx.float32) if "z_bias" in self else 0.0)
        return x_b_c, z, mx.maximum(raw.astype(mx.float32), _LOWEST)


class LlambaLayer(HybridLayer):
    """The mixer, then the MLP."""

    feed_norm: ClassVar[str] = "post_attention_layernorm"

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__(config, index)
        self.input_layernorm.eps = self[self.feed_norm].eps = _EPS
        self.mlp = GatedMLP(config.d_model, config.parts.d_ff, bias=config.parts.ff_bias)

    def make_mamba(self, config: ModelConfig) -> ScanMixer:
        return DiscreteMamba2Mixer(config)

    def feed(self, normed: mx.array) -> mx.array:
        return fed(self.mlp, normed)


class Llamba(HybridModel):
    """Llamba language model."""

    names: ClassVar[ParameterNames] = ParameterNames("backbone", "embeddings", "final_layernorm")

    @classmethod
    def make_layer(cls, config: ModelConfig, index: int) -> LlambaLayer:
        return LlambaLayer(config, index)

    def sanitize(self, weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
        own = {
            name.replace("backbone.embedding.", "backbone.embeddings.").replace(".mixer.", ".mamba."): array
            for name, array in weights.items()
        }
        return super().sanitize(own)
