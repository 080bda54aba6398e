"""Granite 4 hybrids (`granitemoehybrid`): layers of Mamba-2 or attention, each with an MLP, with or without experts.

Parameters are named as in mlx-lm, whose converted checkpoints and ours are the same: a dense model's MLP is `mlp`, and
the experts' and the shared MLP's fused matrices are `switch_mlp` (split) and `shared_mlp` (fused).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from longmamba_mlx.models.base import ParameterNames
from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.models.config.hybrid import ExpertsConfig
from longmamba_mlx.models.families.mamba2 import Mamba2Mixer
from longmamba_mlx.models.feedforward import FeedForward, GatedExperts, GatedMLP, router_scores, top_experts
from longmamba_mlx.models.hybrid import HybridLayer, HybridModel, fed
from longmamba_mlx.models.mixer import ScanMixer


class FusedMLP(FeedForward):
    """output_linear(silu(a) * b) with a, b the halves of input_linear: the MLP that every token visits."""

    entry: ClassVar[str] = "input_linear"

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.input_linear = nn.Linear(width, 2 * inner, bias=False)
        self.output_linear = nn.Linear(inner, width, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        gate, up = mx.split(self.input_linear(x), 2, axis=-1)
        y: mx.array = self.output_linear(nn.silu(gate) * up)
        return y


class Router(nn.Module):
    """The linear that scores the experts."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, count, bias=False)


class GraniteExperts(nn.Module):
    """The `per_token` best experts, weighted by the softmax over their scores alone."""

    def __init__(self, config: ExpertsConfig, width: int) -> None:
        super().__init__()
        self.per_token = config.per_token
        self.switch_mlp = GatedExperts(config.count, width, config.width)
        self.router = Router(width, config.count)

    def __call__(self, x: mx.array) -> mx.array:
        scores = router_scores(self.router.layer, x)
        chosen = top_experts(scores, self.per_token)
        weights = mx.softmax(mx.take_along_axis(scores, chosen, axis=-1), axis=-1)
        y: mx.array = self.switch_mlp(x, chosen, weights)
        return y


class GraniteLayer(HybridLayer):
    """One mixer, then the MLP and, where there are some, the experts."""

    feed_norm: ClassVar[str] = "post_attention_layernorm"

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__(config, index)
        parts = config.parts
        if parts.experts is None:
            self.mlp = GatedMLP(config.d_model, parts.d_ff)
        else:
            self.block_sparse_moe = GraniteExperts(parts.experts, config.d_model)
            self.shared_mlp = FusedMLP(config.d_model, parts.d_ff)

    def make_mamba(self, config: ModelConfig) -> ScanMixer:
        return Mamba2Mixer(config)

    def feed(self, normed: mx.array) -> mx.array:
        if "mlp" in self:
            return fed(self.mlp, normed)
        shared = fed(self.shared_mlp, normed)
        routed: mx.array = self.block_sparse_moe(normed.astype(self.shared_mlp.input_type()))
        return shared + routed


class Granite(HybridModel):
    """Granite hybrid language model (`granitemoehybrid`)."""

    names: ClassVar[ParameterNames] = ParameterNames("model", "embed_tokens", "norm")

    @classmethod
    def make_layer(cls, config: ModelConfig, index: int) -> GraniteLayer:
        return GraniteLayer(config, index)

    def sanitize(self, weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
        fitted: dict[str, mx.array] = {}
        for name, array in super().sanitize(weights).items():
            fitted |= self._split(name, array)
        return fitted

    def to_mlx_lm(
        self, raw: Mapping[str, object], weights: Mapping[str, mx.array]
    ) -> tuple[dict[str, object], dict[str, mx.array]]:
        """transformers 4's names of layers, and what mlx-lm takes another default or another key for."""
        parts = self.config.parts
        low, high = self.config.time_step_limit
        said: dict[str, object] = {
            "layer_types": list(parts.layers),
            "position_embedding_type": "nope" if parts.attends.rope is None else "rope",
            "time_step_limit": [low, high],
            "rms_norm_eps": self.config.norm_eps,
        }
        if parts.experts is None:
            said["intermediate_size"] = parts.d_ff  # the dense MLP's width, which transformers reads elsewhere
        return {**raw, **said}, dict(weights)

    def _split(self, name: str, array: mx.array) -> dict[str, mx.array]:
        """transformers' fused matrices as the parameters they belong to; everything else as it is."""
        dense = self.config.parts.experts is None
        for fused, target, axis in (
            (".block_sparse_moe.input_linear.weight", ".block_sparse_moe.switch_mlp.", 1),
            (".shared_mlp.input_linear.weight", ".mlp.", 0),
        ):
            if name.endswith(fused) and array.ndim == axis + 2 and (axis or dense):
                gate, up = mx.split(array, 2, axis=axis)
                at = name.removesuffix(fused) + target
                return {at + "gate_proj.weight": gate, at + "up_proj.weight": up}
        name = name.replace(".block_sparse_moe.output_linear.", ".block_sparse_moe.switch_mlp.down_proj.")
        if dense:
            name = name.replace(".shared_mlp.output_linear.", ".mlp.down_proj.")
        return {name: array}
