"""Nemotron-H (arXiv 2504.03624): each layer is one thing, a Mamba-2 mixer, attention, an MLP or routed experts."""

from __future__ import annotations

import re
from collections.abc import Mapping

import mlx.core as mx
import mlx.nn as nn

from longmamba_mlx.models.attention import Attention
from longmamba_mlx.models.base import Block, LanguageModel
from longmamba_mlx.models.config import nemotron_h_omni
from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.models.config.hybrid import ATTENTION, EXPERTS, MAMBA, ExpertsConfig
from longmamba_mlx.models.families.mamba2 import Mamba2Mixer
from longmamba_mlx.models.feedforward import FeedForward, SquaredReluExperts, SquaredReluMLP, top_experts
from longmamba_mlx.models.mixer import Mixer
from longmamba_mlx.storage.json_config import Reader

_LEAST = 1e-20  # keeps a division by the chosen scores' sum finite


class SigmoidRouter(nn.Module):
    """Chooses by sigmoid scores plus a correction, among the best groups; weighs by the scores without it."""

    def __init__(self, config: ExpertsConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.weight = mx.zeros((config.count, width))
        self.e_score_correction_bias = mx.zeros((config.count,))

    def __call__(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """x (b, l, width) -> the chosen experts (b, l, k) and their weights, in float32."""
        config = self.config
        scores = mx.sigmoid(x.astype(mx.float32) @ self.weight.astype(mx.float32).T)
        chosen = top_experts(self._eligible(scores + self.e_score_correction_bias), config.per_token)
        weights = mx.take_along_axis(scores, chosen, axis=-1)
        if config.normalised:
            weights = weights / (weights.sum(axis=-1, keepdims=True) + _LEAST)
        return chosen, weights * config.scaling

    def _eligible(self, scores: mx.array) -> mx.array:
        """scores (b, l, experts), -inf outside the groups whose two best experts score highest together."""
        groups, best = self.config.groups, self.config.top_groups
        if best == groups:
            return scores
        grouped = scores.reshape(*scores.shape[:-1], groups, -1)
        strength = mx.topk(grouped, min(2, grouped.shape[-1]), axis=-1).sum(axis=-1)
        rank = mx.argsort(mx.argsort(-strength, axis=-1), axis=-1)
        return mx.where((rank < best)[..., None], grouped, -mx.inf).reshape(scores.shape)


class NemotronExperts(FeedForward):
    """Routed squared-ReLU experts, in a narrower space where the config says so, beside one that all tokens visit."""

    def __init__(self, config: ExpertsConfig, width: int, bias: bool) -> None:
        super().__init__()
        self.gate = SigmoidRouter(config, width)
        self.switch_mlp = SquaredReluExperts(config.count, config.latent or width, config.width)
        if config.shared:
            self.shared_experts = SquaredReluMLP(width, config.shared, bias=bias)
        if config.latent:
            self.fc1_latent_proj = nn.Linear(width, config.latent, bias=bias)
            self.fc2_latent_proj = nn.Linear(config.latent, width, bias=bias)

    def input_type(self) -> mx.Dtype:
        # The router gets the input as it is: the choice of experts must not depend on a rounding.
        return mx.float32

    def __call__(self, x: mx.array) -> mx.array:
        chosen, weights = self.gate(x)
        x = x.astype(self.switch_mlp.input_type())
        inner = self.fc1_latent_proj(x) if "fc1_latent_proj" in self else x
        y: mx.array = self.switch_mlp(inner, chosen, weights)
        if "fc2_latent_proj" in self:
            y = self.fc2_latent_proj(y)
        return y + self.shared_experts(x) if "shared_experts" in self else y


class NemotronH(LanguageModel):
    """Nemotron-H language model (`nemotron_h`), its parameters named as in mlx-lm."""

    @classmethod
    def make_layer(cls, config: ModelConfig, index: int) -> Block:
        return Block(config, make_mixer(config, config.parts.layers[index]))

    def sanitize(self, weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Also: transformers' trunk name, experts joined, no layers for predicting several tokens ahead, and of a model
        that sees and hears the language model alone."""
        inner = {name.removeprefix(_INNER): array for name, array in weights.items() if name.startswith(_INNER)}
        weights = inner or weights
        fitted: dict[str, mx.array] = {}
        experts: dict[str, dict[int, mx.array]] = {}
        for name, array in super().sanitize(weights).items():
            name = re.sub(r"^model\.", "backbone.", name)
            found = re.fullmatch(r"(.*\.mixer\.)experts\.(\d{1,4})\.(up|down)_proj\.weight", name)
            if found:
                experts.setdefault(f"{found[1]}switch_mlp.{_EXPERTS[found[3]]}.weight", {})[int(found[2])] = array
            elif not name.startswith("mtp."):
                fitted[name] = array
        for name, by_number in experts.items():
            fitted[name] = mx.stack([by_number[number] for number in sorted(by_number)])
        return fitted | self._absent_biases(fitted)

    def to_mlx_lm(
        self, raw: Mapping[str, object], weights: Mapping[str, mx.array]
    ) -> tuple[dict[str, object], dict[str, mx.array]]:
        """mlx-lm asks another key for the biases of Mamba mixers, and knows no older name of head_dim."""
        if raw.get("model_type") == nemotron_h_omni.MODEL_TYPE:
            raw = nemotron_h_omni.text_part(Reader(raw))
        said: dict[str, object] = {"mamba_proj_bias": self.config.use_bias}
        if self.config.parts.attention is not None:
            said["head_dim"] = self.config.parts.attention.head_dim
        return {**raw, **said}, dict(weights)

    def _absent_biases(self, weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Zeros for attention biases where there are none: transformers' class has none, whatever its config says."""
        wanted = {
            f"backbone.layers.{index}.mixer.{name}.bias": linear.bias
            for index, layer in enumerate(self.layers)
            if isinstance(layer.mixer, Attention)
            for name, linear in layer.mixer.children().items()
            if "bias" in linear
        }
        return {} if wanted.keys() & weights.keys() else {name: mx.zeros_like(bias) for name, bias in wanted.items()}


_INNER = "language_model."
_EXPERTS = {"up": "fc1", "down": "fc2"}


def make_mixer(config: ModelConfig, kind: str) -> Mixer:
    """The one part of a layer of this kind."""
    parts = config.parts
    if kind == MAMBA:
        return Mamba2Mixer(config)
    if kind == ATTENTION:
        return Attention(parts.attends, config.d_model, config.d_model)
    if kind == EXPERTS and parts.experts is not None:
        return NemotronExperts(parts.experts, config.d_model, parts.ff_bias)
    return SquaredReluMLP(config.d_model, parts.d_ff, bias=parts.ff_bias)
