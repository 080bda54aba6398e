"""Jamba (arXiv 2403.19887): Mamba-1 or attention without positions, then an MLP, every few layers a routed one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from longmamba_mlx.models.base import Layer
from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.models.config.hybrid import ExpertsConfig
from longmamba_mlx.models.families.mamba import MambaMixer
from longmamba_mlx.models.feedforward import FeedForward, GatedExperts, GatedMLP, router_scores, top_experts
from longmamba_mlx.models.hybrid import HybridLayer, HybridModel, fed
from longmamba_mlx.models.mixer import ScanMixer, float_type

_EXPERT = re.compile(r"(.+\.feed_forward)\.experts\.(\d{1,4})\.((?:gate|up|down)_proj\.weight)")
_FUSED = re.compile(r"(.+\.feed_forward)\.experts\.(gate_up|down)_proj")


class RoutedMLP(FeedForward):
    """The likeliest experts, each by its share in the softmax over all of them: the shares do not add up to 1."""

    entry: ClassVar[str] = "router"

    def __init__(self, width: int, experts: ExpertsConfig) -> None:
        super().__init__()
        self.per_token = experts.per_token
        self.router = nn.Linear(width, experts.count, bias=False)
        self.switch_mlp = GatedExperts(experts.count, width, experts.width)

    def input_type(self) -> mx.Dtype:
        return float_type(self.switch_mlp.gate_proj)

    def __call__(self, x: mx.array) -> mx.array:
        shares = mx.softmax(router_scores(self.router, x), axis=-1, precise=True)
        chosen = top_experts(shares, self.per_token)
        y: mx.array = self.switch_mlp(x, chosen, mx.take_along_axis(shares, chosen, axis=-1))
        return y


class JambaLayer(HybridLayer):
    """A mixer, then a dense or a routed MLP."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__(config, index)
        parts = config.parts
        routed = parts.experts is not None and parts.routed[index]
        self.feed_forward: FeedForward = (
            RoutedMLP(config.d_model, parts.experts)
            if routed and parts.experts is not None
            else GatedMLP(config.d_model, parts.d_ff)
        )

    def make_mamba(self, config: ModelConfig) -> ScanMixer:
        return MambaMixer(config, weighted_norms=True)

    def feed(self, normed: mx.array) -> mx.array:
        return fed(self.feed_forward, normed)


class Jamba(HybridModel):
    """Jamba language model, dense or with experts."""

    @classmethod
    def make_layer(cls, config: ModelConfig, index: int) -> Layer:
        return JambaLayer(config, index)

    def sanitize(self, weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Also the experts of a layer, one by one in a checkpoint, as one array (expert, out, in)."""
        fitted: dict[str, mx.array] = {}
        single: dict[str, dict[int, mx.array]] = defaultdict(dict)
        for name, array in super().sanitize(weights).items():
            if found := _EXPERT.fullmatch(name):
                single[f"{found[1]}.switch_mlp.{found[3]}"][int(found[2])] = array
            elif (found := _FUSED.fullmatch(name)) and array.ndim == 3:
                fitted |= _unfused(f"{found[1]}.switch_mlp", found[2], array)
            else:
                fitted[name] = array
        for name, parts in single.items():
            fitted |= _stacked(name, parts)
        return fitted


def _unfused(prefix: str, which: str, array: mx.array) -> dict[str, mx.array]:
    """transformers' own parameters in memory: gate and up of every expert in one array."""
    if which == "down":
        return {f"{prefix}.down_proj.weight": array}
    gate, up = mx.split(array, [array.shape[1] // 2], axis=1)
    return {f"{prefix}.gate_proj.weight": gate, f"{prefix}.up_proj.weight": up}


def _stacked(name: str, parts: Mapping[int, mx.array]) -> dict[str, mx.array]:
    """Experts 0, 1, ... as one array. With a gap or unlike shapes they stay as they are: unknown tensors, refused."""
    shapes = {tuple(array.shape) for array in parts.values()}
    if set(parts) == set(range(len(parts))) and len(shapes) == 1:
        return {name: mx.stack([parts[index] for index in range(len(parts))])}
    return {f"{name}.{index}": array for index, array in parts.items()}
