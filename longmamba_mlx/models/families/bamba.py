"""Bamba: layers of Mamba-2 or attention (half of each head turned), each with a gated MLP."""

from __future__ import annotations

import mlx.core as mx

from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.models.families.mamba2 import Mamba2Mixer
from longmamba_mlx.models.feedforward import GatedMLP
from longmamba_mlx.models.hybrid import HybridLayer, HybridModel, fed
from longmamba_mlx.models.mixer import ScanMixer


class BambaLayer(HybridLayer):
    """One mixer, then the MLP."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__(config, index)
        self.feed_forward = GatedMLP(config.d_model, config.parts.d_ff, bias=config.parts.ff_bias)

    def make_mamba(self, config: ModelConfig) -> ScanMixer:
        return Mamba2Mixer(config)

    def feed(self, normed: mx.array) -> mx.array:
        return fed(self.feed_forward, normed)


class Bamba(HybridModel):
    """Bamba language model (`bamba`)."""

    @classmethod
    def make_layer(cls, config: ModelConfig, index: int) -> BambaLayer:
        return BambaLayer(config, index)
