"""The base of all language models: embedding, residual layers on a carried state, final norm, head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, overload

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.models.mixer import Mixer, ScanMixer, float_type
from longmamba_mlx.models.state import LayerState, ModelState


class Layer(nn.Module):
    """One layer of a model; see `LanguageModel.layer` and `.raw_step` for shapes."""

    @property
    def scan(self) -> ScanMixer | None:
        """The layer's Mamba mixer, None where it has none."""
        raise NotImplementedError

    def initial(self, batch: int) -> LayerState:
        """The state before the first token."""
        raise NotImplementedError

    def run(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        """One pass over hidden (b, l, width). Kept counts may be None for a layer without a scan."""
        raise NotImplementedError

    def scan_input(self, hidden: mx.array, mixer: ScanMixer) -> mx.array:
        """The Mamba mixer's input in `run`."""
        raise NotImplementedError

    def scale_scan(self, decay: NDArray[np.float32], write: float) -> None:
        """Multiply the scan's A by `decay` and its B by `write` from now on; see `ScanMixer.scale`."""
        if self.scan is not None:
            self.scan.scale(decay, write)

    def token_rates(self, hidden: mx.array) -> mx.array | None:
        """|A| of each token, None where it does not depend on the token."""
        return None

    def raw_step(self, hidden: mx.array, state: LayerState) -> tuple[mx.array, LayerState]:
        """Raw dt. Raises ValueError where the layer has no scan."""
        mixer = self.scan
        if mixer is None:
            raise ValueError("this layer has no scan, and so no dt")
        raw, after = mixer.raw(self.scan_input(hidden, mixer), state)
        return raw, replace(after, attention=state.attention)


class Block(Layer):
    """One residual layer with one mixer: hidden + mixer(norm(hidden))."""

    def __init__(self, config: ModelConfig, mixer: Mixer) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.mixer = mixer

    @property
    def scan(self) -> ScanMixer | None:
        return self.mixer if isinstance(self.mixer, ScanMixer) else None

    def initial(self, batch: int) -> LayerState:
        state: LayerState = self.mixer.initial(batch)
        return state

    def scan_input(self, hidden: mx.array, mixer: Mixer) -> mx.array:
        normed: mx.array = self.norm(hidden)
        return normed.astype(mixer.input_type())

    def run(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        mixed, after, kept = self.mixer.mix(self.scan_input(hidden, self.mixer), state, threshold, return_kept)
        return hidden + mixed.astype(hidden.dtype), after, kept


@dataclass(frozen=True, slots=True)
class ParameterNames:
    """The names that a family's checkpoints give to the parts all models have."""

    trunk: str = "backbone"
    embeddings: str = "embeddings"
    final_norm: str = "norm_f"


class Trunk(nn.Module):
    """Embedding, layers and final norm under a family's own names."""

    def __init__(self, config: ModelConfig, names: ParameterNames, layers: list[Layer]) -> None:
        super().__init__()
        self[names.embeddings] = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = layers
        self[names.final_norm] = nn.RMSNorm(config.d_model, eps=config.norm_eps)


class LanguageModel(nn.Module):
    """A language model that runs layer by layer on a carried state.

    The residual stream is float32 (as `residual_in_fp32` asks for in every public Mamba checkpoint); the
    products inside a mixer run in the weights' dtype; dt, decays and scan states are float32.
    """

    names: ClassVar[ParameterNames] = ParameterNames()

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        layers = [self.make_layer(config, index) for index in range(config.n_layer)]
        self[self.names.trunk] = Trunk(config, self.names, layers)
        if not config.tie_embeddings:
            self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)

    @classmethod
    def make_layer(cls, config: ModelConfig, index: int) -> Layer:
        """Layer `index` of the family."""
        raise NotImplementedError

    @property
    def layers(self) -> list[Layer]:
        """All layers, in order."""
        found: list[Layer] = self[self.names.trunk].layers
        return found

    def with_layers(self, layers: list[Layer]) -> LanguageModel:
        """The same model with other layers; embedding, norm and head are shared."""
        twin, trunk = copy(self), copy(self[self.names.trunk])
        trunk.layers = layers
        twin[self.names.trunk] = trunk
        return twin

    @property
    def embeddings(self) -> nn.Embedding:
        """The table of token embeddings, also the head where both are tied."""
        table: nn.Embedding = self[self.names.trunk][self.names.embeddings]
        return table

    @classmethod
    def mended(cls, config: ModelConfig, weights: Mapping[str, mx.array]) -> tuple[ModelConfig, Mapping[str, mx.array]]:
        """Repair the configuration and tensors of a folder whose converter changed the tensors but not config.json."""
        return config, weights

    def sanitize(self, weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Checkpoint tensors as this model's parameters: PyTorch's conv layout turned, no tied head."""
        fitted = {}
        for name, array in weights.items():
            if name.endswith("conv1d.weight") and array.ndim == 3 and array.shape[1] == 1 != array.shape[2]:
                array = array.swapaxes(1, 2)  # (c, 1, k) -> (c, k, 1)
            if not (self.config.tie_embeddings and name.startswith("lm_head.")):
                fitted[name] = array
        return fitted

    def to_mlx_lm(
        self, raw: Mapping[str, object], weights: Mapping[str, mx.array]
    ) -> tuple[dict[str, object], dict[str, mx.array]]:
        """Adapt config.json and parameters so that mlx-lm, where it knows the family, computes the same as this class.

        Every conversion calls this: `raw` is the checkpoint's config.json, `weights` are this model's parameters.
        mlx-lm ignores some keys and has other defaults for others.
        """
        return dict(raw), dict(weights)

    def embed(self, ids: mx.array) -> mx.array:
        """Token ids (b, l) -> hidden (b, l, d_model) float32."""
        hidden: mx.array = self.embeddings(ids)
        return hidden.astype(mx.float32)

    def has_scan(self, index: int) -> bool:
        """Whether layer `index` has a Mamba mixer, and so something to filter."""
        return self.layers[index].scan is not None

    @overload
    def layer(
        self, index: int, hidden: mx.array, state: LayerState, threshold: mx.array | None = None
    ) -> tuple[mx.array, LayerState]: ...

    @overload
    def layer(
        self, index: int, hidden: mx.array, state: LayerState, threshold: mx.array | None, *, return_kept: Literal[True]
    ) -> tuple[mx.array, LayerState, mx.array]: ...

    def layer(
        self,
        index: int,
        hidden: mx.array,
        state: LayerState,
        threshold: mx.array | None = None,
        *,
        return_kept: bool = False,
    ) -> tuple[mx.array, LayerState] | tuple[mx.array, LayerState, mx.array]:
        """Run layer `index` over hidden (b, l, d_model), starting from `state`.

        threshold (units,) float32 on raw dt, None for no filter. Returns (hidden, LayerState) and,
        with `return_kept`, how many units kept each token, (b, l) int32; 0 in layers without a scan.
        """
        hidden, after, kept = self.layers[index].run(hidden, state, threshold, return_kept)
        if not return_kept:
            return hidden, after
        return hidden, after, mx.zeros(hidden.shape[:2], dtype=mx.int32) if kept is None else kept

    def raw_step(self, index: int, hidden: mx.array, state: LayerState) -> tuple[mx.array, LayerState]:
        """Raw dt (dt + dt_bias) of layer `index`, which its threshold is compared with.

        hidden (b, l, d_model) -> (b, l, units) float32, and a state whose conv window is advanced past these
        tokens while all else is unchanged. Raises ValueError for a layer without a scan.
        """
        return self.layers[index].raw_step(hidden, state)

    def token_rates(self, index: int, hidden: mx.array) -> mx.array | None:
        """|A| of layer `index` for each token of hidden (b, l, d_model): (b, l, units) float32, in Mamba-3. None where
        it is the same for all tokens (`decay_rates`), and without a scan."""
        return self.layers[index].token_rates(hidden)

    def head(self, hidden: mx.array) -> mx.array:
        """Final norm and language-model head: hidden (b, l, d_model) -> logits (b, l, vocab) float32."""
        table = self.embeddings if self.config.tie_embeddings else self.lm_head
        normed = self[self.names.trunk][self.names.final_norm](hidden).astype(float_type(table))
        logits = self.embeddings.as_linear(normed) if self.config.tie_embeddings else self.lm_head(normed)
        result: mx.array = logits.astype(mx.float32)
        return result

    def initial_state(self, batch: int = 1) -> ModelState:
        """The state before the first token."""
        return ModelState(layers=tuple(layer.initial(batch) for layer in self.layers), tokens=0)

    def decay_rates(self, index: int) -> NDArray[np.float32]:
        """|A| of layer `index` in float32: (n_heads,) for Mamba-2, (d_inner, d_state) for Mamba-1.

        Raises ValueError for a layer without a scan, and for one whose rates depend on the token (`token_rates`).
        """
        mixer = self.layers[index].scan
        if mixer is None:
            raise ValueError(f"layer {index} has no scan, and so no decay rates")
        return mixer.rates()

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
