"""Falcon-H1 (arXiv 2507.22448): in every layer Mamba-2 and attention side by side, then a gated MLP.

The checkpoints come with fixed factors on embedding, logits, keys, and on what goes into and out of every part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import mlx.core as mx

from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.models.config.hybrid import Multipliers
from longmamba_mlx.models.families.mamba2 import Mamba2Mixer, spread
from longmamba_mlx.models.feedforward import GatedMLP
from longmamba_mlx.models.hybrid import HybridLayer, HybridModel, beside, fed
from longmamba_mlx.models.mixer import ScanMixer
from longmamba_mlx.models.state import LayerState


class FalconH1Layer(HybridLayer):
    """hidden + mamba(norm(hidden)) + attention(norm(hidden)), then the MLP."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__(config, index)
        parts = config.parts
        self.factors = parts.multipliers
        self.feed_forward = GatedMLP(
            config.d_model,
            parts.d_ff,
            bias=parts.ff_bias,
            gate_scale=self.factors.gate,
            down_scale=self.factors.down,
        )

    def make_mamba(self, config: ModelConfig) -> ScanMixer:
        parts = config.parts
        factors = parts.multipliers.ssm
        return Mamba2Mixer(
            config,
            gated_norm=parts.gated_norm,
            out_bias=parts.out_bias,
            multipliers=None if set(factors) == {1.0} else factors,
        )

    def initial(self, batch: int) -> LayerState:
        return beside(self.mamba.initial(batch), self.self_attn.initial(batch))

    def scan_input(self, hidden: mx.array, mixer: ScanMixer) -> mx.array:
        return self._to_scan(self.input_layernorm(hidden))

    def mix(
        self, normed: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        scanned, after_scan, kept = self.mamba.mix(self._to_scan(normed), state, threshold, return_kept)
        to_attention = (normed * self.factors.attention_in).astype(self.self_attn.input_type())
        attended, after_attention, _ = self.self_attn.mix(to_attention, state, None, False)
        mixed = (
            scanned.astype(mx.float32) * self.factors.ssm_out + attended.astype(mx.float32) * self.factors.attention_out
        )
        return mixed, beside(after_scan, after_attention), kept

    def feed(self, normed: mx.array) -> mx.array:
        return fed(self.feed_forward, normed)

    def _to_scan(self, normed: mx.array) -> mx.array:
        return (normed * self.factors.ssm_in).astype(self.mamba.input_type())


class FalconH1(HybridModel):
    """Falcon-H1 language model (`falcon_h1`)."""

    @classmethod
    def make_layer(cls, config: ModelConfig, index: int) -> FalconH1Layer:
        return FalconH1Layer(config, index)

    @classmethod
    def mended(cls, config: ModelConfig, weights: Mapping[str, mx.array]) -> tuple[ModelConfig, Mapping[str, mx.array]]:
        """Undo the faults of a folder that mlx-lm converted: it multiplies most factors into the weights.

        Such a folder's convolutions are in MLX's layout while its config.json still lists the factors. Those of
        keys and, on their way in, of values were left out of the weights, and are applied here: values by what comes
        out of attention, to which they are in proportion. Biases were left out too, and are multiplied here.
        """
        parts = config.parts
        factors = parts.multipliers
        turned = any(name.endswith("mamba.conv1d.weight") and array.shape[-1] == 1 for name, array in weights.items())
        if not turned:
            return config, weights
        left = factors.logits / factors.embedding if config.tie_embeddings else 1.0
        kept = Multipliers(key=factors.key, attention_out=factors.attention_in, logits=left)
        scales = _bias_scales(factors, spread(config, factors.ssm))
        weights = {name: _times(array, scales.get(_kind(name))) for name, array in weights.items()}
        return replace(config, hybrid=replace(parts, multipliers=kept)), weights

    def to_mlx_lm(
        self, raw: Mapping[str, object], weights: Mapping[str, mx.array]
    ) -> tuple[dict[str, object], dict[str, mx.array]]:
        """The factors multiplied into the weights: mlx-lm applies none while it runs. Sizes are said in full.

        Products are made in float32. Biases take the factors of what comes out, not of what goes in.
        """
        factors, tied = self.config.parts.multipliers, self.config.tie_embeddings
        scales = _scales(factors, spread(self.config, factors.ssm))
        folded = {name: _times(array, scales.get(_kind(name))) for name, array in weights.items()}
        # A tied table has taken the embedding's factor and serves as the head too.
        left = factors.logits / factors.embedding if tied else 1.0
        return {**raw, **_said(self.config), **_UNIT_FACTORS, "lm_head_multiplier": left}, folded


def _said(config: ModelConfig) -> dict[str, object]:
    """Keys for which mlx-lm has the numbers of one checkpoint as defaults."""
    attends = config.parts.attends
    said: dict[str, object] = {
        "head_dim": attends.head_dim,
        "num_key_value_heads": attends.n_kv_heads,
        "mamba_d_ssm": config.d_inner,
        "mamba_d_head": config.headdim,
    }
    return said if attends.rope is None else {**said, "rope_theta": attends.rope.theta}


_UNIT_FACTORS: dict[str, object] = {
    "embedding_multiplier": 1.0,
    "key_multiplier": 1.0,
    "attention_in_multiplier": 1.0,
    "attention_out_multiplier": 1.0,
    "ssm_in_multiplier": 1.0,
    "ssm_out_multiplier": 1.0,
    "ssm_multipliers": [1.0] * 5,
    "mlp_multipliers": [1.0, 1.0],
}


def _scales(factors: Multipliers, spread_ssm: mx.array) -> dict[str, mx.array | float]:
    """What each kind of parameter is multiplied with: a number, or one for each row."""
    inwards, outwards = factors.attention_in, factors.attention_out
    return {
        "embed_tokens.weight": factors.embedding,
        "lm_head.weight": factors.logits,
        "q_proj.weight": inwards,
        "k_proj.weight": inwards * factors.key,
        "k_proj.bias": factors.key,
        "v_proj.weight": inwards,
        "o_proj.weight": outwards,
        "o_proj.bias": outwards,
        "in_proj.weight": spread_ssm[:, None] * factors.ssm_in,
        "in_proj.bias": spread_ssm,
        "out_proj.weight": factors.ssm_out,
        "out_proj.bias": factors.ssm_out,
        "gate_proj.weight": factors.gate,
        "gate_proj.bias": factors.gate,
        "down_proj.weight": factors.down,
        "down_proj.bias": factors.down,
    }


def _bias_scales(factors: Multipliers, spread_ssm: mx.array) -> dict[str, mx.array | float]:
    """What each kind of bias is multiplied with beside weights that mlx-lm has multiplied."""
    return {
        "v_proj.bias": 1.0 / factors.attention_in,
        "o_proj.bias": factors.attention_out / factors.attention_in,
        "in_proj.bias": spread_ssm,
        "out_proj.bias": factors.ssm_out,
        "gate_proj.bias": factors.gate,
        "down_proj.bias": factors.down,
    }


def _kind(name: str) -> str:
    """The last two parts of a parameter's name, such as "k_proj.weight"."""
    return ".".join(name.split(".")[-2:])


def _times(array: mx.array, scale: mx.array | float | None) -> mx.array:
    if scale is None or (isinstance(scale, float) and scale == 1.0):
        return array
    return (array.astype(mx.float32) * scale).astype(array.dtype)
