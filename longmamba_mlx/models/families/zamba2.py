"""Zamba2 (arXiv 2411.15242): Mamba-2 layers, some of which read the output of a shared transformer block too.

A shared block reads the residual stream and the first embedding side by side. So `hidden` is twice as wide here as in
other models: (b, l, 2 * d_model), the stream and then the embedding, which every layer hands on unchanged. What a
block makes of it goes into its layer's Mamba mixer, not into the stream.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from longmamba_mlx.models.attention import Attention
from longmamba_mlx.models.base import LanguageModel, Layer, ParameterNames
from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.models.config.hybrid import BOTH, SharedConfig
from longmamba_mlx.models.families.mamba2 import Mamba2Mixer
from longmamba_mlx.models.mixer import ScanMixer, float_type
from longmamba_mlx.models.state import KeyValues, LayerState

_SHARED = re.compile(r"model\.layers\.(\d{1,4})\.(shared_transformer\..+)")
ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "gelu": nn.gelu,
    "gelu_tanh": nn.gelu_approx,
    "silu": nn.silu,
}

Adapters = list[list[nn.Linear]]
"""A shared linear's low-rank additions: two linears for each layer that uses it, none for layers of other blocks."""


def _adapters(mine: Sequence[bool], width: int, rank: int, outputs: int) -> Adapters:
    pairs = ((nn.Linear(width, rank, bias=False), nn.Linear(rank, outputs, bias=False)) if own else () for own in mine)
    return [list(pair) for pair in pairs]


def _adapted(linear: nn.Linear, adapters: Adapters, slot: int, x: mx.array) -> mx.array:
    """linear(x) with the addition of the layer at `slot`."""
    down, up = adapters[slot]
    y: mx.array = linear(x) + up(down(x))
    return y


class SharedAttention(Attention):
    """Attention whose queries, keys and values each layer may adapt."""

    def __init__(self, config: ModelConfig, shared: SharedConfig, mine: Sequence[bool]) -> None:
        width = 2 * config.d_model
        super().__init__(config.parts.attends, width, config.d_model)
        if shared.adapted_attention:
            self.linear_q_adapter_list = _adapters(mine, width, shared.rank, width)
            self.linear_k_adapter_list = _adapters(mine, width, shared.rank, width)
            self.linear_v_adapter_list = _adapters(mine, width, shared.rank, width)

    def adapted(self, x: mx.array, before: KeyValues, slot: int) -> tuple[mx.array, KeyValues]:
        """What `Attention` gives, for the layer at `slot`."""
        if "linear_q_adapter_list" not in self:
            return self(x, before)
        return self.attend(
            _adapted(self.q_proj, self.linear_q_adapter_list, slot, x),
            _adapted(self.k_proj, self.linear_k_adapter_list, slot, x),
            _adapted(self.v_proj, self.linear_v_adapter_list, slot, x),
            before,
        )


class SharedMLP(nn.Module):
    """down(act(gate) * up), gate and up from one product that each layer adapts."""

    def __init__(self, config: ModelConfig, shared: SharedConfig, mine: Sequence[bool]) -> None:
        super().__init__()
        width, inner, bias = config.d_model, config.parts.d_ff, config.parts.ff_bias
        self.activation = ACTIVATIONS[shared.activation]
        self.gate_up_proj = nn.Linear(width, 2 * inner, bias=bias)
        self.gate_up_proj_adapter_list = _adapters(mine, width, shared.rank, 2 * inner)
        self.down_proj = nn.Linear(inner, width, bias=bias)

    def __call__(self, x: mx.array, slot: int) -> mx.array:
        gate, up = mx.split(_adapted(self.gate_up_proj, self.gate_up_proj_adapter_list, slot, x), 2, axis=-1)
        y: mx.array = self.down_proj(self.activation(gate) * up)
        return y


class SharedBlock(nn.Module):
    """norm -> attention -> norm -> MLP, without residuals; `mine` says which hybrid layers use it."""

    def __init__(self, config: ModelConfig, shared: SharedConfig, mine: Sequence[bool]) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(2 * config.d_model, eps=config.norm_eps)
        self.self_attn = SharedAttention(config, shared, mine)
        self.pre_ff_layernorm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.feed_forward = SharedMLP(config, shared, mine)

    def __call__(self, hidden: mx.array, before: KeyValues, slot: int) -> tuple[mx.array, KeyValues]:
        """hidden (b, l, 2 * d_model) float32 -> (b, l, d_model), and what its attention has read."""
        attention, network = self.self_attn, self.feed_forward
        normed = self.input_layernorm(hidden).astype(attention.input_type())
        y, after = attention.adapted(normed, before, slot)
        normed = self.pre_ff_layernorm(y.astype(mx.float32)).astype(float_type(network.gate_up_proj))
        return network(normed, slot), after


class MambaLayer(Layer):
    """stream + mamba(norm(stream)), beside the embedding that it hands on."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.mamba = self.make_mamba(config)

    def make_mamba(self, config: ModelConfig) -> ScanMixer:
        """The layer's mixer."""
        return Mamba2Mixer(config)

    @property
    def scan(self) -> ScanMixer | None:
        found: ScanMixer = self.mamba
        return found

    def initial(self, batch: int) -> LayerState:
        return self.mamba.initial(batch)

    def scan_input(self, hidden: mx.array, mixer: ScanMixer) -> mx.array:
        return self.normed(_stream(hidden))

    def normed(self, stream: mx.array) -> mx.array:
        """norm(stream) in the dtype the mixer computes in."""
        normed: mx.array = self.input_layernorm(stream)
        return normed.astype(self.mamba.input_type())

    def run(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        return self.run_on(self.scan_input(hidden, self.mamba), hidden, state, threshold, return_kept)

    def run_on(
        self, x: mx.array, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        """`run` with x (b, l, d_model) as the mixer's input."""
        mixed, after, kept = self.mamba.mix(x, state, threshold, return_kept)
        stream = _stream(hidden)
        return _beside(stream + mixed.astype(stream.dtype), hidden), after, kept


class HybridLayer(Layer):
    """A Mamba layer whose mixer hears stream + linear(block(stream, embedding)) in place of the stream.

    `slot` counts the hybrid layers; the first ones, as many as there are blocks, hold the blocks' weights. Where head
    and embedding are not tied, every layer holds a block: transformers then ties nothing, and may save them unlike.
    """

    def __init__(self, config: ModelConfig, slot: int) -> None:
        super().__init__()
        shared = shared_of(config)
        self.slot = slot
        self.linear = nn.Linear(config.d_model, config.d_model, bias=False)
        self.mamba_decoder = self.make_decoder(config)
        if slot < shared.blocks or not config.tie_embeddings:
            self.shared_transformer = self.make_block(config)

    def make_decoder(self, config: ModelConfig) -> MambaLayer:
        """The layer's Mamba part."""
        return MambaLayer(config)

    def make_block(self, config: ModelConfig) -> nn.Module:
        """The shared block that the layer holds."""
        shared, count = shared_of(config), config.parts.layers.count(BOTH)
        mine = [other % shared.blocks == self.slot % shared.blocks for other in range(count)]
        return SharedBlock(config, shared, mine)

    def share(self, block: nn.Module) -> None:
        """Use `block` from now on."""
        # In a tuple, which MLX does not search for parameters: they belong to the layer that holds the block.
        self._block = (block,)

    @property
    def scan(self) -> ScanMixer | None:
        return self.mamba_decoder.scan

    def initial(self, batch: int) -> LayerState:
        attention = self._block[0].self_attn.initial(batch).attention
        return replace(self.mamba_decoder.initial(batch), attention=attention)

    def run(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        x, read = self._scan_input(hidden, state)
        hidden, after, kept = self.mamba_decoder.run_on(x, hidden, state, threshold, return_kept)
        return hidden, replace(after, attention=read), kept

    def raw_step(self, hidden: mx.array, state: LayerState) -> tuple[mx.array, LayerState]:
        """As in other layers; the attention has read the tokens too, since the dt of later tokens depends on it."""
        x, read = self._scan_input(hidden, state)
        raw, after = self.mamba_decoder.mamba.raw(x, state)
        return raw, replace(after, attention=read)

    def _scan_input(self, hidden: mx.array, state: LayerState) -> tuple[mx.array, KeyValues]:
        """The Mamba mixer's input (b, l, d_model), and what the attention has read."""
        before = state.attention
        if before is None:
            raise ValueError("a hybrid layer's state without keys and values")
        y, read = self._block[0](hidden, before, self.slot)
        added = self.linear(y.astype(float_type(self.linear)))
        return self.mamba_decoder.normed(_stream(hidden) + added.astype(hidden.dtype)), read


class Zamba2(LanguageModel):
    """Zamba2 language model, with any number of shared blocks."""

    names: ClassVar[ParameterNames] = ParameterNames("model", "embed_tokens", "final_layernorm")

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        hybrids = [layer for layer in self.layers if isinstance(layer, HybridLayer)]
        for layer in hybrids:
            holder = layer if "shared_transformer" in layer else hybrids[layer.slot % shared_of(config).blocks]
            layer.share(holder.shared_transformer)

    @classmethod
    def make_layer(cls, config: ModelConfig, index: int) -> Layer:
        kinds = config.parts.layers
        return HybridLayer(config, kinds[:index].count(BOTH)) if kinds[index] == BOTH else MambaLayer(config)

    def sanitize(self, weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Also each shared block under the layers that hold it, whichever of its users the checkpoint has it under."""
        fitted = super().sanitize(weights)
        hybrids = [index for index, layer in enumerate(self.layers) if isinstance(layer, HybridLayer)]
        holders = {index for index in hybrids if "shared_transformer" in self.layers[index]}
        blocks = shared_of(self.config).blocks
        stored = [(name, int(found[1]), found[2]) for name in fitted if (found := _SHARED.fullmatch(name))]
        for name, layer, part in stored:
            if layer not in hybrids:
                continue
            for user in hybrids[hybrids.index(layer) % blocks :: blocks]:
                if user in holders:
                    fitted.setdefault(f"model.layers.{user}.{part}", fitted[name])
            if layer not in holders:
                del fitted[name]  # a copy
        return fitted

    def embed(self, ids: mx.array) -> mx.array:
        """Token ids (b, l) -> hidden (b, l, 2 * d_model) float32: the embedding as the stream, and as itself."""
        embedded = super().embed(ids)
        return mx.concatenate([embedded, embedded], axis=-1)

    def head(self, hidden: mx.array) -> mx.array:
        return super().head(_stream(hidden))


def shared_of(config: ModelConfig) -> SharedConfig:
    """What is shared. Raises ValueError for a model without shared blocks."""
    shared = config.parts.shared
    if shared is None:
        raise ValueError("this model has no shared blocks")
    return shared


def _stream(hidden: mx.array) -> mx.array:
    """The residual stream in hidden (b, l, 2 * d_model)."""
    return hidden[..., : hidden.shape[-1] // 2]


def _beside(stream: mx.array, hidden: mx.array) -> mx.array:
    """The new stream beside hidden's embedding."""
    return mx.concatenate([stream, hidden[..., hidden.shape[-1] // 2 :]], axis=-1)
