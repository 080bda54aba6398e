"""Mamba-3 (arXiv 2603.15569), SISO and MIMO, as in state-spaces/mamba at e9594ce."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.models.base import Block, LanguageModel, Layer
from longmamba_mlx.models.config.parse import ModelConfig
from longmamba_mlx.models.families.mamba2 import GatedNorm
from longmamba_mlx.models.feedforward import FeedForward
from longmamba_mlx.models.mixer import ScanMixer
from longmamba_mlx.models.state import LayerState, require
from longmamba_mlx.ops.activations import softplus
from longmamba_mlx.ops.inputs import unpacked
from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs, Mamba3State, Mimo
from longmamba_mlx.ops.mamba3.rates import decay_rates

_EPS = 1e-5  # of the mixer's own norms, whatever the model's epsilon


class Mamba3Mixer(ScanMixer):
    """in_proj -> norms of B and C -> scan, gated (and normed per head) -> out_proj. One step size for each head.

    There is no convolution. The decay rate, the trapezoid's weight and the angles depend on the token.
    """

    _dt_factor: float = 1.0

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        heads, own = config.n_heads, config.turning
        self.in_proj = nn.Linear(config.d_model, sum(self._widths()), bias=False)
        self.dt_bias = mx.zeros((heads,))
        self.B_bias = mx.ones((heads, own.rank, config.d_state))
        self.C_bias = mx.ones((heads, own.rank, config.d_state))
        self.B_norm = nn.RMSNorm(config.d_state, eps=_EPS)
        self.C_norm = nn.RMSNorm(config.d_state, eps=_EPS)
        if own.mimo:
            shape = (heads, own.rank, config.headdim)
            self.mimo_x, self.mimo_z, self.mimo_o = (mx.ones(shape) for _ in range(3))
        self.D = mx.ones((heads,))
        if own.gated_norm:
            self.norm = GatedNorm(config.d_inner)
        self.out_proj = nn.Linear(config.d_inner, config.d_model, bias=False)

    @property
    def gated(self) -> bool:
        return "norm" not in self

    def state_shape(self) -> tuple[int, ...]:
        return (self.config.n_heads, self.config.headdim, self.config.d_state)

    def initial(self, batch: int) -> LayerState:
        own = self.config.turning
        heads, width, size = self.state_shape()
        return _as_layer(Mamba3State.zeros(batch, heads, width, size, own.rank, own.angles))

    def mix(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        config, own = self.config, self.config.turning
        z, u, b_in, c_out, dt, rate, trap, angle = self._split(hidden)
        lead, normed = hidden.shape[:2], "norm" in self
        z, u = (part.reshape(*lead, config.n_heads, config.headdim) for part in (z, u))
        by_rank = (*lead, own.rank, config.n_groups, config.d_state)
        dt, dt_bias = self._scaled_dt(dt)
        inputs = Mamba3Inputs(
            u,
            dt,
            rate if "_decay" not in self else self._rates(rate) * -self["_decay"],
            self.written(self.B_norm(b_in.reshape(by_rank))),
            self.C_norm(c_out.reshape(by_rank)),
            trap,
            angle,
            B_bias=self.written(self.B_bias),
            C_bias=self.C_bias,
            D=self.D,
            z=None if normed else z,
            dt_bias=dt_bias,
            mimo=Mimo(self.mimo_x, self.mimo_z, self.mimo_o) if own.mimo else None,
            threshold=threshold,
            initial_state=_as_scan(state),
            return_kept=return_kept,
            A_floor=None if "_decay" in self else own.decay_floor,
        )
        y, after, kept = unpacked(self.ops().mamba3_scan(inputs))
        y = self._normed(y, z) if normed else y
        return self.out_proj(y.reshape(*lead, config.d_inner)), _as_layer(after), kept

    def scale(self, decay: NDArray[np.float32], write: float) -> None:
        """As `ScanMixer.scale`; one factor for both is one on dt, by which the state turns too."""
        if decay.size == 1 and float(decay) == write:
            self._dt_factor = write
        else:
            super().scale(decay, write)

    def _scaled_dt(self, raw: mx.array) -> tuple[mx.array, mx.array | None]:
        """Raw dt and its bias for the scan; where dt is scaled, the raw number whose softplus is the scaled dt."""
        if self._dt_factor == 1.0:
            return raw, self.dt_bias
        dt = self._dt_factor * softplus(raw.astype(mx.float32) + self.dt_bias.astype(mx.float32))
        return dt + mx.log(-mx.expm1(-dt)), None

    def rates(self) -> NDArray[np.float32]:
        raise ValueError("Mamba-3's decay rates depend on the token")

    def raw(self, hidden: mx.array, state: LayerState) -> tuple[mx.array, LayerState]:
        dt = self._split(hidden)[4]
        return dt.astype(mx.float32) + self.dt_bias.astype(mx.float32), state

    def token_rates(self, hidden: mx.array) -> mx.array:
        """|A| (b, l, n_heads) float32 of tokens hidden (b, l, d_model)."""
        return self._rates(self._split(hidden)[5])

    def _widths(self) -> tuple[int, ...]:
        """Of z, x, B, C, dt, A, trap and angle after in_proj."""
        config, own = self.config, self.config.turning
        keys = config.d_state * config.n_groups * own.rank
        return (config.d_inner, config.d_inner, keys, keys, *(3 * (config.n_heads,)), own.angles)

    def _split(self, hidden: mx.array) -> list[mx.array]:
        ends, end = [], 0
        for width in self._widths()[:-1]:
            end += width
            ends.append(end)
        return list(mx.split(self.in_proj(hidden), ends, axis=-1))

    def _rates(self, raw: mx.array) -> mx.array:
        rates: mx.array = decay_rates(mx, raw.astype(mx.float32), self.config.turning.decay_floor)
        return rates

    def _normed(self, y: mx.array, z: mx.array) -> mx.array:
        """The scan's output y (b, l, h, p), with MIMO (b, l, r, h, p), normed per head and gated by z (b, l, h, p)."""
        config, mimo = self.config, self.config.turning.mimo
        if mimo:
            z = z[:, :, None] * self.mimo_z.swapaxes(0, 1).astype(z.dtype)
        flat = (y.shape[0], -1, config.d_inner)
        out = (
            self.ops()
            .gated_rms_norm(
                y.reshape(flat),
                z.reshape(flat),
                self.norm.weight,
                groups=config.n_heads,
                eps=_EPS,
                norm_before_gate=True,
            )
            .reshape(y.shape)
        )
        return (out * self.mimo_o.swapaxes(0, 1).astype(out.dtype)).sum(axis=2) if mimo else out


def _as_scan(state: LayerState) -> Mamba3State:
    return Mamba3State(require(state.ssm), require(state.angle), require(state.last_k), require(state.last_v))


def _as_layer(state: Mamba3State) -> LayerState:
    return LayerState(ssm=state.ssm, angle=state.angle, last_k=state.k, last_v=state.v)


class FusedMLP(FeedForward):
    """fc2(y * silu(gate)) with y, gate the halves of fc1: mamba_ssm's MLP."""

    entry: ClassVar[str] = "fc1"

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * inner, bias=False)
        self.fc2 = nn.Linear(inner, width, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        y, gate = mx.split(self.fc1(x), 2, axis=-1)
        result: mx.array = self.fc2(y * nn.silu(gate))
        return result


class Mamba3Block(Block):
    """hidden + mixer(norm(hidden)), then, where the model has MLPs, hidden + mlp(norm2(hidden))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, Mamba3Mixer(config))
        if config.turning.d_ff:
            self.norm2 = nn.RMSNorm(config.d_model, eps=config.norm_eps)
            self.mlp = FusedMLP(config.d_model, config.turning.d_ff)

    def run(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        hidden, after, kept = super().run(hidden, state, threshold, return_kept)
        if "mlp" in self:
            fed = self.mlp(self.norm2(hidden).astype(self.mlp.input_type()))
            hidden = hidden + fed.astype(hidden.dtype)
        return hidden, after, kept

    def token_rates(self, hidden: mx.array) -> mx.array | None:
        rates: mx.array = self.mixer.token_rates(self.scan_input(hidden, self.mixer))
        return rates


class Mamba3(LanguageModel):
    """Mamba-3 language model (`mamba3`)."""

    def sanitize(self, weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """mamba_ssm's own files can be loaded without a conversion, but for the name of the embedding."""
        own = {name.replace("backbone.embedding.", "backbone.embeddings."): array for name, array in weights.items()}
        return super().sanitize(own)

    @classmethod
    def make_layer(cls, config: ModelConfig, index: int) -> Layer:
        return Mamba3Block(config)
