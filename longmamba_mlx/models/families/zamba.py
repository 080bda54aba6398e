"""Zamba (`zamba`, arXiv 2405.16712): as Zamba2, with Mamba-1 mixers of several heads and one plain shared block.

A Mamba-1 head is a group of channels with B, C and a rank of dt of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from longmamba_mlx.models.attention import Attention
from longmamba_mlx.models.base import Layer
from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.models.config.hybrid import BOTH
from longmamba_mlx.models.families.zamba2 import ACTIVATIONS, HybridLayer, MambaLayer, Zamba2, shared_of
from longmamba_mlx.models.mixer import DepthwiseConv, ScanMixer, float_type
from longmamba_mlx.models.state import KeyValues, LayerState, require
from longmamba_mlx.ops.inputs import ScanInputs, unpacked


class GroupedMambaMixer(ScanMixer):
    """in_proj -> conv -> one selective scan for each head, gated -> out_proj. One step size for each channel."""

    steps: ClassVar[tuple[str, ...]] = ()  # its x_proj and dt_proj are plain arrays, which nothing quantises

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        heads, width = config.n_groups, config.d_inner // config.n_groups
        self.in_proj = nn.Linear(config.d_model, 2 * config.d_inner, bias=config.use_bias)
        self.conv1d = DepthwiseConv(config.d_inner, config.d_conv, config.use_conv_bias)
        self.x_proj_weight = mx.zeros((heads, config.dt_rank + 2 * config.d_state, width))
        self.dt_proj_weight = mx.zeros((heads, width, config.dt_rank))
        self.dt_proj_bias = mx.zeros((heads, width))
        rates = mx.log(mx.arange(1, config.d_state + 1, dtype=mx.float32))
        self.A_log = mx.broadcast_to(rates, (config.d_inner, config.d_state))
        self.D = mx.ones((config.d_inner,))
        self.out_proj = nn.Linear(config.d_inner, config.d_model, bias=config.use_bias)

    @property
    def gated(self) -> bool:
        return True

    def state_shape(self) -> tuple[int, ...]:
        return (self.config.d_inner, self.config.d_state)

    def mix(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        x, z, window = self._inputs(hidden, state)
        raw, B, C = self._selection(x)
        A, ssm, width = self.A(), require(state.ssm), self.config.d_inner // self.config.n_groups
        heads = []
        for head in range(self.config.n_groups):
            own = slice(head * width, (head + 1) * width)
            inputs = ScanInputs(
                x[..., own],
                raw[..., own],
                A[own],
                self.written(B[:, head]),
                C[:, head],
                D=self.D[own],
                z=z[..., own],
                threshold=None if threshold is None else threshold[own],
                initial_state=ssm[:, own],
                return_kept=return_kept,
            )
            heads.append(unpacked(self.ops().selective_scan(inputs)))
        y = mx.concatenate([y for y, _, _ in heads], axis=-1)
        after = LayerState(conv=window, ssm=mx.concatenate([state for _, state, _ in heads], axis=1))
        counts = [kept for _, _, kept in heads if kept is not None]
        return self.out_proj(y), after, sum(counts[1:], counts[0]) if counts else None

    def raw(self, hidden: mx.array, state: LayerState) -> tuple[mx.array, LayerState]:
        x, _, window = self._inputs(hidden, state)
        return self._selection(x)[0], LayerState(conv=window, ssm=state.ssm)

    def _inputs(self, hidden: mx.array, state: LayerState) -> tuple[mx.array, mx.array, mx.array]:
        """The convolved input x and the gate z, (b, l, d_inner) each, and the next conv window."""
        pairs = self.in_proj(hidden).reshape(*hidden.shape[:2], -1, 2)  # x and z take turns
        x, z = pairs[..., 0], pairs[..., 1]
        weight, bias = self.conv1d.parts()
        x, window = self.ops().causal_conv1d(x, weight, bias, state.conv)
        return x, z, window

    def _selection(self, x: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """Raw step sizes (b, l, d_inner) float32, bias included, and B and C of each head, (b, heads, l, n)."""
        config, (batch, length, _) = self.config, x.shape
        by_head = x.reshape(batch, length, config.n_groups, -1).swapaxes(1, 2)
        projected = by_head @ self.x_proj_weight.swapaxes(-1, -2)
        low, B, C = mx.split(projected, [config.dt_rank, config.dt_rank + config.d_state], axis=-1)
        # float32 from here on: the filter compares these numbers.
        raw = low.astype(mx.float32) @ self.dt_proj_weight.astype(mx.float32).swapaxes(-1, -2)
        raw = raw + self.dt_proj_bias.astype(mx.float32)[:, None]
        return raw.swapaxes(1, 2).reshape(batch, length, config.d_inner), B, C


class SharedMLP(nn.Module):
    """down(act(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[shared_of(config).activation]
        self.gate_proj = nn.Linear(config.d_model, config.parts.d_ff, bias=False)
        self.up_proj = nn.Linear(config.d_model, config.parts.d_ff, bias=False)
        self.down_proj = nn.Linear(config.parts.d_ff, config.d_model, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        y: mx.array = self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))
        return y


class PlainBlock(nn.Module):
    """norm -> attention -> norm -> MLP, without residuals, the same for all layers that use it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(2 * config.d_model, eps=config.norm_eps)
        self.self_attn = Attention(config.parts.attends, 2 * config.d_model, config.d_model)
        self.pre_ff_layernorm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.feed_forward = SharedMLP(config)

    def __call__(self, hidden: mx.array, before: KeyValues, slot: int) -> tuple[mx.array, KeyValues]:
        """hidden (b, l, 2 * d_model) float32 -> (b, l, d_model), and what its attention has read."""
        attention, network = self.self_attn, self.feed_forward
        y, after = attention(self.input_layernorm(hidden).astype(attention.input_type()), before)
        normed = self.pre_ff_layernorm(y.astype(mx.float32)).astype(float_type(network.gate_proj))
        return network(normed), after


class ZambaMambaLayer(MambaLayer):
    """A Mamba-1 layer."""

    def make_mamba(self, config: ModelConfig) -> ScanMixer:
        return GroupedMambaMixer(config)


class ZambaHybridLayer(HybridLayer):
    """A Mamba-1 layer that first hears the shared block."""

    def make_decoder(self, config: ModelConfig) -> MambaLayer:
        return ZambaMambaLayer(config)

    def make_block(self, config: ModelConfig) -> nn.Module:
        return PlainBlock(config)


class Zamba(Zamba2):
    """Zamba language model."""

    @classmethod
    def make_layer(cls, config: ModelConfig, index: int) -> Layer:
        kinds = config.parts.layers
        if kinds[index] == BOTH:
            return ZambaHybridLayer(config, kinds[:index].count(BOTH))
        return ZambaMambaLayer(config)

    def sanitize(self, weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Also: the shared block under Zamba2's name, and the heads' A_log and D side by side."""
        fitted = {}
        for name, array in weights.items():
            if name.endswith(".mamba.A_log"):
                array = array.reshape(self.config.d_inner, -1)
            elif name.endswith(".mamba.D"):
                array = array.reshape(-1)
            fitted[name.replace(".shared_transf.", ".shared_transformer.")] = array
        return super().sanitize(fitted)
