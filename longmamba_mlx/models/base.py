"""What every Mamba language model here has in common: embedding, residual layers, final norm, head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.config import ModelConfig
from longmamba_mlx.models.state import LayerState, ModelState


def float_type(module: nn.Module) -> mx.Dtype:
    """The dtype a linear or embedding computes in: its weight's, or its scales' when it is quantised."""
    array: mx.array = module["scales"] if "scales" in module else module["weight"]
    return array.dtype


class DepthwiseConv(nn.Module):
    """Parameters of the causal convolution: weight (c, k, 1), as in MLX's own Conv1d, and bias (c,)."""

    def __init__(self, channels: int, taps: int, bias: bool) -> None:
        super().__init__()
        self.weight = mx.zeros((channels, taps, 1))
        if bias:
            self.bias = mx.zeros((channels,))

    def parts(self) -> tuple[mx.array, mx.array | None]:
        """weight (c, k) and bias (c,) or None."""
        return self.weight[:, :, 0], self.get("bias")


class Mixer(nn.Module):
    """A layer's mixer. Both `mix` and `raw` give a new state and change nothing in place."""

    def mix(
        self, x: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        """x (b, l, d_model) -> the mixer's output, the state after it, kept counts (b, l) where asked for."""
        raise NotImplementedError

    def raw(self, x: mx.array, state: LayerState) -> tuple[mx.array, LayerState]:
        """dt + dt_bias (b, l, units) float32, without scanning; the state with its conv window advanced."""
        raise NotImplementedError

    def state_shape(self) -> tuple[int, ...]:
        """Shape of the scan's state for one sequence."""
        raise NotImplementedError


class Block(nn.Module):
    """One residual layer: hidden + mixer(norm(hidden))."""

    def __init__(self, config: ModelConfig, mixer: Mixer) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.mixer = mixer

    def normed(self, hidden: mx.array) -> mx.array:
        """norm(hidden) in the dtype the mixer computes in."""
        normed: mx.array = self.norm(hidden)
        return normed.astype(float_type(self.mixer["in_proj"]))

    def run(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        """One pass over hidden (b, l, d_model); see `LanguageModel.layer`."""
        mixed, after, kept = self.mixer.mix(self.normed(hidden), state, threshold, return_kept)
        return hidden + mixed.astype(hidden.dtype), after, kept

    def raw_step(self, hidden: mx.array, state: LayerState) -> tuple[mx.array, LayerState]:
        """Raw step sizes; see `LanguageModel.raw_step`."""
        return self.mixer.raw(self.normed(hidden), state)


class Backbone(nn.Module):
    """Embedding, layers and final norm, named as in transformers' checkpoints."""

    def __init__(self, config: ModelConfig, layers: list[Block]) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = layers
        self.norm_f = nn.RMSNorm(config.d_model, eps=config.norm_eps)


class LanguageModel(nn.Module):
    """A Mamba language model that runs layer by layer on a carried state.

    The residual stream is float32 (as `residual_in_fp32` asks for in every public checkpoint); the products
    inside a mixer run in the weights' dtype; step sizes, decays and scan states are float32.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config, [Block(config, self.make_mixer(config)) for _ in range(config.n_layer)])
        if not config.tie_embeddings:
            self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)

    @staticmethod
    def make_mixer(config: ModelConfig) -> Mixer:
        """The family's mixer."""
        raise NotImplementedError

    def sanitize(self, weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Checkpoint tensors as this model's parameters: PyTorch's conv layout turned, no tied head."""
        fitted = {}
        for name, array in weights.items():
            if name.endswith("conv1d.weight") and array.ndim == 3 and array.shape[1] == 1 != array.shape[2]:
                array = array.swapaxes(1, 2)  # (c, 1, k) -> (c, k, 1)
            if name != "lm_head.weight" or not self.config.tie_embeddings:
                fitted[name] = array
        return fitted

    def embed(self, ids: mx.array) -> mx.array:
        """Token ids (b, l) -> hidden (b, l, d_model) float32."""
        hidden: mx.array = self.backbone.embeddings(ids)
        return hidden.astype(mx.float32)

    def layer(
        self,
        index: int,
        hidden: mx.array,
        state: LayerState,
        threshold: mx.array | None = None,
        return_kept: bool = False,
    ) -> Any:
        """Run layer `index` over hidden (b, l, d_model), starting from `state`.

        threshold (units,) float32 on raw step sizes, None for no filter. Returns (hidden, LayerState) and,
        with `return_kept`, how many units kept each token, (b, l) int32.
        """
        hidden, after, kept = self.backbone.layers[index].run(hidden, state, threshold, return_kept)
        return (hidden, after, kept) if return_kept else (hidden, after)

    def raw_step(self, index: int, hidden: mx.array, state: LayerState) -> tuple[mx.array, LayerState]:
        """The raw step sizes (dt + dt_bias) of layer `index`, which its threshold is compared with.

        hidden (b, l, d_model) -> (b, l, units) float32, and a state whose conv window is advanced past these
        tokens while its scan state is unchanged.
        """
        block: Block = self.backbone.layers[index]
        return block.raw_step(hidden, state)

    def head(self, hidden: mx.array) -> mx.array:
        """Final norm and language-model head: hidden (b, l, d_model) -> logits (b, l, vocab) float32."""
        embeddings = self.backbone.embeddings
        table = embeddings if self.config.tie_embeddings else self.lm_head
        normed = self.backbone.norm_f(hidden).astype(float_type(table))
        logits = embeddings.as_linear(normed) if self.config.tie_embeddings else self.lm_head(normed)
        result: mx.array = logits.astype(mx.float32)
        return result

    def initial_state(self, batch: int = 1) -> ModelState:
        """The state before the first token."""
        layers = []
        for block in self.backbone.layers:
            conv = mx.zeros(
                (batch, self.config.d_conv - 1, self.config.conv_dim),
                dtype=float_type(block.mixer["in_proj"]),
            )
            ssm = mx.zeros((batch, *block.mixer.state_shape()), dtype=mx.float32)
            layers.append(LayerState(conv=conv, ssm=ssm))
        return ModelState(layers=tuple(layers), tokens=0)

    def decay_rates(self, index: int) -> NDArray[np.float32]:
        """|A| of layer `index` in float32: (n_heads,) for Mamba-2, (d_inner, d_state) for Mamba-1."""
        rates: NDArray[np.float32] = np.exp(np.array(self.backbone.layers[index].mixer["A_log"].astype(mx.float32)))
        return rates

    def __call__(
        self,
        ids: mx.array,
        state: ModelState | None = None,
        thresholds: Sequence[mx.array | None] | None = None,
    ) -> tuple[mx.array, ModelState]:
        """Run all layers over ids (b, l): (hidden (b, l, d_model) for `head`, the state after them).

        `thresholds` holds one (units,) float32 array or None for each layer.
        """
        state = self.initial_state(ids.shape[0]) if state is None else state
        hidden = self.embed(ids)
        after = []
        for index in range(self.config.n_layer):
            threshold = None if thresholds is None else thresholds[index]
            hidden, layer_state = self.layer(index, hidden, state.layers[index], threshold)
            after.append(layer_state)
        return hidden, ModelState(layers=tuple(after), tokens=state.tokens + ids.shape[1])
