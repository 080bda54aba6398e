"""What a layer does with its normed input: the interface of all mixers, and what Mamba mixers share."""

from __future__ import annotations

from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from longmamba_mlx.models.config.parse import ModelConfig
from longmamba_mlx.models.state import LayerState


def float_type(module: nn.Module) -> mx.Dtype:
    """The dtype a linear or embedding computes in: its weight's, or its scales' when it is quantised."""
    array: mx.array = module["scales"] if "scales" in module else module["weight"]
    # The scales of the mxfp modes are 8-bit exponents.
    return array.dtype if mx.issubdtype(array.dtype, mx.floating) else mx.bfloat16


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
    """What a layer does with its normed input: a scan, attention, or a feed-forward network on its own."""

    entry: ClassVar[str] = "in_proj"
    """The linear that the input meets first: its dtype is the one the mixer computes in."""

    def input_type(self) -> mx.Dtype:
        """The dtype the input is cast to."""
        return float_type(self[self.entry])

    def initial(self, batch: int) -> LayerState:
        """The state before the first token."""
        return LayerState()

    def mix(
        self, x: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        """x (b, l, d_model) -> the mixer's output, the state after it, kept counts (b, l) where asked for.

        Changes nothing in place. Without a scan the threshold is ignored and there are no counts.
        """
        raise NotImplementedError


class ScanMixer(Mixer):
    """A Mamba mixer: what the filter works on. `config`, `A_log` and the linears are the subclass's."""

    config: ModelConfig

    def raw(self, x: mx.array, state: LayerState) -> tuple[mx.array, LayerState]:
        """dt + dt_bias (b, l, units) float32, without scanning; the state with its conv window advanced."""
        raise NotImplementedError

    def state_shape(self) -> tuple[int, ...]:
        """Shape of the scan's state for one sequence."""
        raise NotImplementedError

    def initial(self, batch: int) -> LayerState:
        window = (batch, self.config.d_conv - 1, self.config.conv_dim)
        return LayerState(
            conv=mx.zeros(window, dtype=self.input_type()),
            ssm=mx.zeros((batch, *self.state_shape()), dtype=mx.float32),
        )

    @property
    def is_plain(self) -> bool:
        """Whether nothing but the configuration decides what the mixer computes."""
        return True

    def rate(self) -> mx.array:
        """A = -exp(A_log) in float32, computed once for each A_log it is asked for."""
        # Names with an underscore are no parameters. Loading puts another array into A_log, which this notices.
        if self.get("_rate_of") is not self.A_log:
            self._rate = -mx.exp(self.A_log.astype(mx.float32))
            self._rate_of = self.A_log
        rate: mx.array = self._rate
        return rate
