"""Mamba-1 (arXiv 2312.00752) and Falcon-Mamba, which also normalises B, C and dt (arXiv 2410.05355)."""

from __future__ import annotations

from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from longmamba_mlx.models.base import Block, LanguageModel, Layer
from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.models.mixer import DepthwiseConv, ScanMixer
from longmamba_mlx.models.state import LayerState
from longmamba_mlx.ops import precision
from longmamba_mlx.ops.inputs import ScanInputs, unpacked


class MambaMixer(ScanMixer):
    """in_proj -> conv -> selective scan, gated -> out_proj. One dt for each channel of d_inner.

    `weighted_norms`: dt, B and C pass through RMS norms with weights of their own (Jamba); without, they are normed
    where the config has a `mixer_rms_eps` (Falcon-Mamba).
    """

    steps: ClassVar[tuple[str, ...]] = ("x_proj", "dt_proj")

    def __init__(self, config: ModelConfig, *, weighted_norms: bool = False) -> None:
        super().__init__()
        self.config = config
        self.in_proj = nn.Linear(config.d_model, 2 * config.d_inner, bias=config.use_bias)
        self.conv1d = DepthwiseConv(config.d_inner, config.d_conv, config.use_conv_bias)
        self.x_proj = nn.Linear(config.d_inner, config.dt_rank + 2 * config.d_state, bias=False)
        self.dt_proj = nn.Linear(config.dt_rank, config.d_inner, bias=True)
        # S4D-real, the initialisation of every public checkpoint.
        rates = mx.log(mx.arange(1, config.d_state + 1, dtype=mx.float32))
        self.A_log = mx.broadcast_to(rates, (config.d_inner, config.d_state))
        self.D = mx.ones((config.d_inner,))
        if weighted_norms:
            self.dt_layernorm = nn.RMSNorm(config.dt_rank, eps=config.norm_eps)
            self.b_layernorm = nn.RMSNorm(config.d_state, eps=config.norm_eps)
            self.c_layernorm = nn.RMSNorm(config.d_state, eps=config.norm_eps)
        self.out_proj = nn.Linear(config.d_inner, config.d_model, bias=config.use_bias)

    @property
    def is_plain(self) -> bool:
        return "dt_layernorm" not in self

    @property
    def gated(self) -> bool:
        return True

    def state_shape(self) -> tuple[int, ...]:
        return (self.config.d_inner, self.config.d_state)

    def mix(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        x, z, window = self._inputs(hidden, state)
        y, ssm, kept = self._scanned(x, z, state, threshold, return_kept)
        return self.out_proj(y), LayerState(conv=window, ssm=ssm), kept

    def raw(self, hidden: mx.array, state: LayerState) -> tuple[mx.array, LayerState]:
        x, _, window = self._inputs(hidden, state)
        return self._selection(x)[0], LayerState(conv=window, ssm=state.ssm)

    def _scanned(
        self, x: mx.array, z: mx.array | None, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, mx.array, mx.array | None]:
        """The scan of x, gated by z if there is one, its state after that, and kept counts."""
        dt, B, C = self._selection(x)
        inputs = ScanInputs(
            x,
            dt,
            self.A(),
            self.written(B),
            C,
            D=self.D,
            z=z,
            threshold=threshold,
            initial_state=state.ssm,
            return_kept=return_kept,
        )
        return unpacked(self.ops().selective_scan(inputs))

    def _inputs(self, hidden: mx.array, state: LayerState) -> tuple[mx.array, mx.array, mx.array]:
        """The convolved input x and the gate z, (b, l, d_inner) each, and the next conv window."""
        x, z = mx.split(self.in_proj(hidden), 2, axis=-1)
        weight, bias = self.conv1d.parts()
        x, window = self.ops().causal_conv1d(x, weight, bias, state.conv)
        return x, z, window

    def _selection(self, x: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """Raw dt (b, l, d_inner) float32, bias included, and B and C (b, l, n)."""
        sizes = (self.config.dt_rank, self.config.d_state, self.config.d_state)
        projected, eps = self.x_proj(x), self.config.mixer_rms_eps
        if eps is not None:
            dt, B, C = self.ops().dt_b_c_norms(projected, sizes, eps=eps)
        elif "dt_layernorm" in self:
            weights = (self.dt_layernorm.weight, self.b_layernorm.weight, self.c_layernorm.weight)
            dt, B, C = self.ops().dt_b_c_norms(projected, sizes, eps=self.config.norm_eps, weights=weights)
        else:
            dt, B, C = mx.split(projected, [sizes[0], sizes[0] + sizes[1]], axis=-1)
        # float32 from here on: the filter compares these numbers.
        return precision.linear(self.dt_proj, dt.astype(mx.float32)).astype(mx.float32), B, C


class Mamba(LanguageModel):
    """Mamba-1 language model (`mamba`, `falcon_mamba`)."""

    @classmethod
    def make_layer(cls, config: ModelConfig, index: int) -> Layer:
        return Block(config, MambaMixer(config))
