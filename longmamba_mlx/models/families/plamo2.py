"""PLaMo-2 (`plamo2`, arXiv 2509.04897): Mamba-2 layers and attention in windows take turns, each with an MLP.

What differs from Mamba-2: z and x take turns head by head in in_proj, the convolution is over x alone, and B, C and dt
are projected from its output and normed. All norms of the residual stream have weights that are stored less an offset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from longmamba_mlx.models.attention import Attention, periods
from longmamba_mlx.models.base import LanguageModel, Layer, ParameterNames
from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.models.config.hybrid import MAMBA, AttentionConfig
from longmamba_mlx.models.feedforward import PackedMLP
from longmamba_mlx.models.hybrid import fed
from longmamba_mlx.models.mixer import DepthwiseConv, Mixer, ScanMixer
from longmamba_mlx.models.state import KeyValues, LayerState
from longmamba_mlx.ops import precision
from longmamba_mlx.ops.inputs import ScanInputs, unpacked

_HEADS_EPS = 1e-6  # of the norms of queries and keys, whatever the model's epsilon


class OffsetNorm(nn.RMSNorm):
    """An RMS norm that multiplies by weight + offset."""

    def __init__(self, width: int, eps: float, offset: float = 1.0) -> None:
        super().__init__(width, eps)
        self.weight = mx.zeros((width,))
        self._offset = offset

    def __call__(self, x: mx.array) -> mx.array:
        if self.get("_sum_of") is not self.weight:  # loading puts another array into the weight
            self._sum_of, self._sum = self.weight, self.weight + self._offset
        normed: mx.array = mx.fast.rms_norm(x, self._sum, self.eps)
        return normed


class Plamo2Mixer(ScanMixer):
    """in_proj -> conv over x -> B, C, dt from it -> scan, gated by z -> out_proj. One dt for each head."""

    steps: ClassVar[tuple[str, ...]] = ("bcdt_proj", "dt_proj")

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.in_proj = nn.Linear(config.d_model, 2 * config.d_inner, bias=False)
        self.conv1d = DepthwiseConv(config.d_inner, config.d_conv, bias=False)
        self.bcdt_proj = nn.Linear(config.d_inner, config.dt_rank + 2 * config.d_state, bias=False)
        self.dt_proj = nn.Linear(config.dt_rank, config.n_heads, bias=False)
        self.dt_bias = mx.zeros((config.n_heads,))
        self.A_log = mx.log(mx.arange(1, config.n_heads + 1, dtype=mx.float32))
        self.D = mx.ones((config.n_heads,))
        self.dt_norm_weight = mx.ones((config.dt_rank,))
        self.B_norm_weight = mx.ones((config.d_state,))
        self.C_norm_weight = mx.ones((config.d_state,))
        self.out_proj = nn.Linear(config.d_inner, config.d_model, bias=False)

    @property
    def gated(self) -> bool:
        return True

    def state_shape(self) -> tuple[int, ...]:
        return (self.config.n_heads, self.config.headdim, self.config.d_state)

    def window_width(self) -> int:
        return self.config.d_inner

    def mix(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        z, x, window = self._inputs(hidden, state)
        dt, B, C = self._selection(x)
        config, lead = self.config, hidden.shape[:2]
        inputs = ScanInputs(
            x.reshape(*lead, config.n_heads, config.headdim),
            dt,
            self.A(),
            self.written(B)[:, :, None],
            C[:, :, None],
            D=self.D,
            z=z,
            dt_bias=self.dt_bias,
            threshold=threshold,
            initial_state=state.ssm,
            return_kept=return_kept,
        )
        y, ssm, kept = unpacked(self.ops().ssd_scan(inputs))
        y = self.out_proj(y.reshape(*lead, config.d_inner))
        return y, LayerState(conv=window, ssm=ssm), kept

    def raw(self, hidden: mx.array, state: LayerState) -> tuple[mx.array, LayerState]:
        _, x, window = self._inputs(hidden, state)
        raw = self._selection(x)[0] + self.dt_bias.astype(mx.float32)
        return raw, LayerState(conv=window, ssm=state.ssm)

    def _inputs(self, hidden: mx.array, state: LayerState) -> tuple[mx.array, mx.array, mx.array]:
        """The gate z (b, l, h, p), the convolved input x (b, l, d_inner), and the next conv window."""
        config, lead = self.config, hidden.shape[:2]
        z, x = mx.split(self.in_proj(hidden).reshape(*lead, config.n_heads, 2 * config.headdim), 2, axis=-1)
        weight, bias = self.conv1d.parts()
        x, window = self.ops().causal_conv1d(x.reshape(*lead, config.d_inner), weight, bias, state.conv)
        return z, x, window

    def _selection(self, x: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """dt (b, l, h) float32, without its bias, and B and C (b, l, n)."""
        sizes = (self.config.d_state, self.config.d_state, self.config.dt_rank)
        weights = (self.B_norm_weight, self.C_norm_weight, self.dt_norm_weight)
        B, C, dt = self.ops().dt_b_c_norms(self.bcdt_proj(x), sizes, eps=self.config.norm_eps, weights=weights)
        # float32 from here on: the filter compares these numbers.
        return precision.linear(self.dt_proj, dt.astype(mx.float32)).astype(mx.float32), B, C


class Plamo2Attention(Attention):
    """Attention whose queries and keys are normed for each head before they turn."""

    entry: ClassVar[str] = "qkv_proj"

    def __init__(self, config: AttentionConfig, d_model: int) -> None:
        Mixer.__init__(self)
        self.config = config
        width, kv_width = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self._ends = [width, width + kv_width]
        self.qkv_proj = nn.Linear(d_model, width + 2 * kv_width, bias=False)
        self.o_proj = nn.Linear(width, d_model, bias=False)
        self.q_weight = mx.ones((config.n_heads, config.head_dim))
        self.k_weight = mx.ones((config.n_kv_heads, config.head_dim))
        self._periods = None if config.rope is None else periods(config.rope)

    def __call__(self, x: mx.array, before: KeyValues) -> tuple[mx.array, KeyValues]:
        queries, keys, values = mx.split(self.qkv_proj(x), self._ends, axis=-1)
        return self.attend(self._normed(queries, self.q_weight), self._normed(keys, self.k_weight), values, before)

    def _normed(self, x: mx.array, weight: mx.array) -> mx.array:
        """x (b, l, heads * head_dim), each head normed and multiplied by its row of weight (heads, head_dim)."""
        normed = mx.fast.rms_norm(x.reshape(*x.shape[:2], *weight.shape), None, _HEADS_EPS)
        return (normed * weight).astype(x.dtype).reshape(x.shape)


class Plamo2Layer(Layer):
    """hidden + norm(mixer(norm(hidden))), then the same with the MLP."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        kind = config.parts.layers[index]
        self.mixer: Mixer = (
            Plamo2Mixer(config) if kind == MAMBA else Plamo2Attention(config.parts.attends.of(kind), config.d_model)
        )
        self.mlp = PackedMLP(config.d_model, config.parts.d_ff)
        offsets = {"pre_mixer_norm": 1.0, "post_mixer_norm": 1 / 5, "pre_mlp_norm": 1.0, "post_mlp_norm": 1 / 5**1.5}
        for name, offset in offsets.items():
            self[name] = OffsetNorm(config.d_model, config.norm_eps, offset)

    @property
    def scan(self) -> ScanMixer | None:
        return self.mixer if isinstance(self.mixer, ScanMixer) else None

    def initial(self, batch: int) -> LayerState:
        return self.mixer.initial(batch)

    def scan_input(self, hidden: mx.array, mixer: Mixer) -> mx.array:
        normed: mx.array = self.pre_mixer_norm(hidden)
        return normed.astype(mixer.input_type())

    def run(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        mixed, after, kept = self.mixer.mix(self.scan_input(hidden, self.mixer), state, threshold, return_kept)
        hidden = hidden + self.post_mixer_norm(mixed.astype(hidden.dtype))
        y = fed(self.mlp, self.pre_mlp_norm(hidden))
        return hidden + self.post_mlp_norm(y.astype(hidden.dtype)), after, kept


class Stack(nn.Module):
    """The layers under the name that checkpoints have for them, `model.layers.layers`."""

    def __init__(self, layers: list[Layer]) -> None:
        super().__init__()
        self.layers = layers


class Plamo2(LanguageModel):
    """PLaMo-2 language model, with mlx-lm's names of parameters, which are the publisher's."""

    names: ClassVar[ParameterNames] = ParameterNames("model", "embed_tokens", "norm")

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.model.layers = Stack(self.model.layers)
        self.model.norm = OffsetNorm(config.d_model, config.norm_eps)

    @classmethod
    def make_layer(cls, config: ModelConfig, index: int) -> Layer:
        return Plamo2Layer(config, index)

    @property
    def layers(self) -> list[Layer]:
        found: list[Layer] = self.model.layers.layers
        return found

    def with_layers(self, layers: list[Layer]) -> LanguageModel:
        twin = super().with_layers(layers)
        twin.model.layers = Stack(layers)
        return twin

    def sanitize(self, weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Also: a head of its own without the rows that round its vocabulary up to a multiple of 16."""
        fitted = super().sanitize(weights)
        return {
            name: array[: self.config.vocab_size] if name.startswith("lm_head.") else array
            for name, array in fitted.items()
        }
