"""What the hybrid families share: layers that mix (Mamba, attention or both) and then feed forward."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from longmamba_mlx.models.attention import Attention
from longmamba_mlx.models.base import LanguageModel, Layer, ParameterNames
from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.models.config.hybrid import ATTENTION, BOTH, MAMBA
from longmamba_mlx.models.feedforward import FeedForward
from longmamba_mlx.models.mixer import Mixer, ScanMixer
from longmamba_mlx.models.state import LayerState


class HybridLayer(Layer):
    """hidden + r * mixer(norm(hidden)), then hidden + r * feed_forward(norm(hidden)), with r `residual`.

    The mixer is `mamba` or `self_attn`, whichever the layer's kind says. Families give the feed-forward part and the
    name of its norm.
    """

    feed_norm: ClassVar[str] = "pre_ff_layernorm"

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        parts = config.parts
        kind = parts.layers[index]
        self.residual = parts.multipliers.residual
        self.input_layernorm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self[self.feed_norm] = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        if kind in (MAMBA, BOTH):
            self.mamba = self.make_mamba(config)
        if kind in (ATTENTION, BOTH):
            self.self_attn = Attention(parts.attends, config.d_model, config.d_model, key_scale=parts.multipliers.key)

    def make_mamba(self, config: ModelConfig) -> ScanMixer:
        """The family's Mamba mixer."""
        raise NotImplementedError

    def feed(self, normed: mx.array) -> mx.array:
        """The feed-forward part on normed hidden (b, l, d_model) float32."""
        raise NotImplementedError

    @property
    def scan(self) -> ScanMixer | None:
        return self.get("mamba")

    @property
    def mixer(self) -> Mixer:
        """The one mixer of a layer that has one."""
        found: Mixer = self["mamba"] if "mamba" in self else self["self_attn"]
        return found

    def initial(self, batch: int) -> LayerState:
        return self.mixer.initial(batch)

    def scan_input(self, hidden: mx.array, mixer: ScanMixer) -> mx.array:
        normed: mx.array = self.input_layernorm(hidden)
        return normed.astype(mixer.input_type())

    def mix(
        self, normed: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        """Run the mixer on normed (b, l, d_model) float32: its output, the state after it, kept counts."""
        mixer = self.mixer
        return mixer.mix(normed.astype(mixer.input_type()), state, threshold, return_kept)

    def run(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        mixed, after, kept = self.mix(self.input_layernorm(hidden), state, threshold, return_kept)
        hidden = self.added(hidden, mixed)
        return self.added(hidden, self.feed(self[self.feed_norm](hidden))), after, kept

    def added(self, hidden: mx.array, part: mx.array) -> mx.array:
        """hidden + r * part, in hidden's float32."""
        part = part.astype(hidden.dtype)
        return hidden + (part if self.residual == 1.0 else part * self.residual)


def fed(network: FeedForward, normed: mx.array) -> mx.array:
    """A feed-forward network on normed hidden, in the network's own dtype."""
    return network(normed.astype(network.input_type()))


def beside(scanned: LayerState, attended: LayerState) -> LayerState:
    """The state of a layer with a scan and attention side by side."""
    return replace(scanned, attention=attended.attention)


class HybridModel(LanguageModel):
    """A language model with factors on its embedding and its logits, under transformers' usual names."""

    names: ClassVar[ParameterNames] = ParameterNames("model", "embed_tokens", "final_layernorm")

    def embed(self, ids: mx.array) -> mx.array:
        factor = self.config.parts.multipliers.embedding
        hidden = super().embed(ids)
        return hidden if factor == 1.0 else hidden * factor

    def head(self, hidden: mx.array) -> mx.array:
        factor = self.config.parts.multipliers.logits
        logits = super().head(hidden)
        return logits if factor == 1.0 else logits * factor
