"""Phi-4-mini-flash-reasoning (`phi4flash`; SambaY, arXiv 2507.06607) with differential attention (arXiv 2410.05258).

The second half of the model decodes from what its first two layers leave: a Mamba layer's scan, of which gated memory
units take their share, and the keys and values of the one layer that attends to everything. So these layers are one
here, with the state of a scan and of one attention, whatever their number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from longmamba_mlx.models.attention import Attention, causal_attention, keeps_scores
from longmamba_mlx.models.base import LanguageModel, Layer, ParameterNames
from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.models.config.hybrid import BOTH, MAMBA, AttentionConfig
from longmamba_mlx.models.families.mamba import MambaMixer
from longmamba_mlx.models.feedforward import PackedMLP
from longmamba_mlx.models.hybrid import fed
from longmamba_mlx.models.mixer import Mixer, ScanMixer
from longmamba_mlx.models.state import KeyValues, LayerState
from longmamba_mlx.ops.activations import silu

_LAYER = re.compile(r"model\.layers\.(\d{1,4})\.(?!stages\.)(.+)")
_HEADS_EPS = 1e-5  # of the norm of each pair of heads, whatever the model's epsilon

Seen = tuple[mx.array, mx.array, mx.array | None]
"""Keys and values (b, kv_heads, s, d), and which of them each token sees, (l, s) bool, None: all up to itself."""


class MemoryMixer(MambaMixer):
    """A Mamba-1 mixer that also gives its scan's output before the gate."""

    @property
    def gated(self) -> bool:
        return False

    def remember(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, mx.array, LayerState, mx.array | None]:
        """As `mix`, with the scan's output (b, l, d_inner) as the second."""
        x, z, window = self._inputs(hidden, state)
        memory, ssm, kept = self._scanned(x, None, state, threshold, return_kept)
        y = self.out_proj((memory.astype(mx.float32) * silu(z.astype(mx.float32))).astype(hidden.dtype))
        return y, memory, LayerState(conv=window, ssm=ssm), kept


class GatedMemory(Mixer):
    """out_proj(silu(in_proj(x)) * memory)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.in_proj = nn.Linear(config.d_model, config.d_inner, bias=config.use_bias)
        self.out_proj = nn.Linear(config.d_inner, config.d_model, bias=config.use_bias)

    def __call__(self, x: mx.array, memory: mx.array) -> mx.array:
        y: mx.array = self.out_proj(nn.silu(self.in_proj(x)) * memory.astype(x.dtype))
        return y


class Difference(nn.Module):
    """How much of every second head is taken from the head before it, and the norm of what is left."""

    def __init__(self, head_dim: int, depth: int) -> None:
        super().__init__()
        self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2 = (mx.zeros((head_dim,)) for _ in range(4))
        self.subln = nn.RMSNorm(2 * head_dim, eps=_HEADS_EPS)
        self._initial = 0.8 - 0.6 * math.exp(-0.3 * depth)

    def __call__(self, first: mx.array, second: mx.array) -> mx.array:
        """(b, heads / 2, l, 2 * head_dim) each -> the same."""
        products = [
            mx.exp((q.astype(mx.float32) * k.astype(mx.float32)).sum())
            for q, k in ((self.lambda_q1, self.lambda_k1), (self.lambda_q2, self.lambda_k2))
        ]
        share = products[0] - products[1] + self._initial
        left = first.astype(mx.float32) - share * second.astype(mx.float32)
        normed: mx.array = self.subln(left) * (1 - self._initial)
        return normed.astype(first.dtype)


class PairedAttention(Attention):
    """Differential attention: of each pair of heads the difference, over the values of both.

    `depth`: the layer's number; `cross`: it has queries only, and hears the keys and values of another layer.
    """

    entry: ClassVar[str] = "Wqkv"
    exit: ClassVar[str] = "out_proj"

    def __init__(self, config: AttentionConfig, d_model: int, depth: int, *, cross: bool = False) -> None:
        Mixer.__init__(self)
        self.config = config
        kv_width = 0 if cross else config.n_kv_heads * config.head_dim
        self._ends = [d_model, d_model + kv_width]
        self.Wqkv = nn.Linear(d_model, d_model + 2 * kv_width, bias=config.bias)
        self.out_proj = nn.Linear(d_model, d_model, bias=config.bias)
        self.inner_cross_attn = Difference(config.head_dim, depth)

    def __call__(self, x: mx.array, before: KeyValues) -> tuple[mx.array, KeyValues]:
        y, after, _ = self.read(x, before)
        return y, after

    def read(self, x: mx.array, before: KeyValues) -> tuple[mx.array, KeyValues, Seen]:
        """As a call, and what its tokens see."""
        queries, keys, values = mx.split(self.Wqkv(x), self._ends, axis=-1)
        keys, values = (self._heads(part, self.config.n_kv_heads) for part in (keys, values))
        after, seen = before.read(keys, values)
        return self.heard(self._heads(queries, self.config.n_heads), *seen), after, seen

    def cross(self, x: mx.array, seen: Seen) -> mx.array:
        """The output for x, from another layer's keys and values."""
        return self.heard(self._heads(self.Wqkv(x), self.config.n_heads), *seen)

    def mixed(self, queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | None) -> mx.array:
        """What each pair of heads makes of the values, (b, heads / 2, l, 2 * head_dim)."""
        halves = [values[:, place::2] for place in (0, 1)]
        if not keeps_scores(self.config.head_dim):  # one pass with both values makes the scores once
            halves = [mx.concatenate(halves, axis=-1)]
        first, second = (
            [
                causal_attention(queries[:, place::2], keys[:, place::2], half, self.config.scale, mask)
                for half in halves
            ]
            for place in (0, 1)
        )
        left: mx.array = self.inner_cross_attn(*(mx.concatenate(parts, axis=-1) for parts in (first, second)))
        return left


class Phi4FlashMLP(PackedMLP):
    """The MLP under its publisher's names."""

    entry: ClassVar[str] = "fc1"
    exit: ClassVar[str] = "fc2"


class Stage(nn.Module):
    """One layer of the publisher's: hidden + mixer(norm(hidden)), then hidden + mlp(norm(hidden))."""

    def __init__(self, config: ModelConfig, mixer: Mixer) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.attn = mixer
        self.post_attention_layernorm = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.mlp = Phi4FlashMLP(config.d_model, config.parts.d_ff, bias=config.parts.ff_bias)

    def normed(self, hidden: mx.array) -> mx.array:
        """The mixer's input."""
        x: mx.array = self.input_layernorm(hidden)
        return x.astype(self.attn.input_type())

    def finished(self, hidden: mx.array, mixed: mx.array) -> mx.array:
        """The hidden state after the mixer's output and the MLP."""
        hidden = hidden + mixed.astype(hidden.dtype)
        return hidden + fed(self.mlp, self.post_attention_layernorm(hidden)).astype(hidden.dtype)


class StageLayer(Stage, Layer):
    """A layer of the first half: Mamba-1, or attention in a window."""

    @property
    def scan(self) -> ScanMixer | None:
        return self.attn if isinstance(self.attn, ScanMixer) else None

    def initial(self, batch: int) -> LayerState:
        state: LayerState = self.attn.initial(batch)
        return state

    def scan_input(self, hidden: mx.array, mixer: ScanMixer) -> mx.array:
        return self.normed(hidden)

    def run(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        mixed, after, kept = self.attn.mix(self.normed(hidden), state, threshold, return_kept)
        return self.finished(hidden, mixed), after, kept


class CrossDecoder(Layer):
    """The second half: a Mamba layer, attention to everything, then layers that take from these two in turn.

    The state depends on the first two alone. So where only the state of a chunk is asked for, as while a document is
    read, MLX computes nothing of the others.
    """

    def __init__(self, config: ModelConfig, depth: int) -> None:
        super().__init__()
        attends, width = config.parts.attends, config.d_model
        mixers: list[Mixer] = [MemoryMixer(config), PairedAttention(attends, width, depth + 1)]
        for index in range(depth + 2, 2 * depth):
            later = PairedAttention(attends, width, index, cross=True) if index % 2 else GatedMemory(config)
            mixers.append(later)
        self.stages = [Stage(config, mixer) for mixer in mixers]

    @property
    def scan(self) -> ScanMixer | None:
        mixer = self.stages[0].attn
        return mixer if isinstance(mixer, ScanMixer) else None

    def initial(self, batch: int) -> LayerState:
        scanned, attended = (stage.attn.initial(batch) for stage in self.stages[:2])
        return replace(scanned, attention=attended.attention)

    def scan_input(self, hidden: mx.array, mixer: ScanMixer) -> mx.array:
        x: mx.array = self.stages[0].normed(hidden)
        return x

    def run(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        scanning, attending, *later = self.stages
        y, memory, after, kept = scanning.attn.remember(scanning.normed(hidden), state, threshold, return_kept)
        hidden = scanning.finished(hidden, y)
        before = attending.attn.nothing(hidden.shape[0]) if state.attention is None else state.attention
        y, read, seen = attending.attn.read(attending.normed(hidden), before)
        hidden = attending.finished(hidden, y)
        for stage in later:
            x = stage.normed(hidden)
            attends = isinstance(stage.attn, PairedAttention)
            hidden = stage.finished(hidden, stage.attn.cross(x, seen) if attends else stage.attn(x, memory))
        return hidden, replace(after, attention=read), kept


class Phi4Flash(LanguageModel):
    """Phi-4-mini-flash language model."""

    names: ClassVar[ParameterNames] = ParameterNames("model", "embed_tokens", "final_layernorm")

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.model.final_layernorm = nn.LayerNorm(config.d_model, eps=config.norm_eps)

    @classmethod
    def make_layer(cls, config: ModelConfig, index: int) -> Layer:
        kind = config.parts.layers[index]
        if kind == BOTH:
            return CrossDecoder(config, index)
        if kind == MAMBA:
            return StageLayer(config, MambaMixer(config))
        return StageLayer(config, PairedAttention(config.parts.attends.of(kind), config.d_model, index))

    def sanitize(self, weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Also: the layers of the second half as stages of one."""
        half, fitted = self.config.n_layer - 1, {}
        for name, array in super().sanitize(weights).items():
            found = _LAYER.fullmatch(name)
            if found is not None and int(found[1]) >= half:
                name = f"model.layers.{half}.stages.{int(found[1]) - half}.{found[2]}"
            fitted[name] = array
        return fitted
