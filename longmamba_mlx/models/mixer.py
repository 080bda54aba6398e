"""The interface of all mixers, which turn a layer's normed input into its output, and what Mamba mixers share."""

from __future__ import annotations

from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.models.state import LayerState
from longmamba_mlx.ops import backend
from longmamba_mlx.ops.backend import Backend


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
        """weight (c, k), one view for each array that is the weight, and bias (c,) or None."""
        if self.get("_view_of") is not self.weight:
            self._view_of, self._view = self.weight, mx.squeeze(self.weight, 2)
        return self._view, self.get("bias")


class Mixer(nn.Module):
    """The part of a layer that works on its normed input: a scan, attention, or a feed-forward network."""

    entry: ClassVar[str] = "in_proj"
    """The first linear: the mixer computes in its dtype."""

    def input_type(self) -> mx.Dtype:
        """The dtype the input is cast to."""
        return float_type(self[self.entry])

    def initial(self, batch: int) -> LayerState:
        """The state before the first token."""
        return LayerState()

    def mix(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        """Mix hidden (b, l, d_model): the output, the state after it and, with `return_kept`, kept counts (b, l).

        Changes nothing in place. Without a scan the threshold is ignored and there are no counts.
        """
        raise NotImplementedError


class ScanMixer(Mixer):
    """A Mamba mixer, the part that the filter works on. Subclasses hold `config`, `A_log` and the linears."""

    config: ModelConfig
    steps: ClassVar[tuple[str, ...]] = ("in_proj",)
    """The linears whose outputs decide step sizes."""
    _write: float = 1.0

    @property
    def gated(self) -> bool | None:
        """Whether the scan itself multiplies by silu(z); None: it is not among those tried when a model is loaded."""
        return None

    def scan_type(self) -> mx.Dtype:
        """The dtype of x, B and C in the scan."""
        return self.input_type()

    def raw(self, hidden: mx.array, state: LayerState) -> tuple[mx.array, LayerState]:
        """dt + dt_bias (b, l, units) float32, without scanning; the state with its conv window advanced."""
        raise NotImplementedError

    def state_shape(self) -> tuple[int, ...]:
        """Shape of the scan's state for one sequence."""
        raise NotImplementedError

    def window_width(self) -> int:
        """The channels that pass through the convolution."""
        return self.config.conv_dim

    def initial(self, batch: int) -> LayerState:
        window = (batch, self.config.d_conv - 1, self.window_width())
        return LayerState(
            conv=mx.zeros(window, dtype=self.input_type()),
            ssm=mx.zeros((batch, *self.state_shape()), dtype=mx.float32),
        )

    @property
    def is_plain(self) -> bool:
        """Whether the configuration alone determines what the mixer computes."""
        return True

    def ops(self) -> Backend:
        """The current backend's ops, without checks: parameters are checked when a model is loaded, thresholds when a
        reading starts."""
        return backend.current(self.config.d_state)

    def rates(self) -> NDArray[np.float32]:
        """|A|, unscaled: (units,) or (units, modes). Raises ValueError where it depends on the token."""
        rates: NDArray[np.float32] = np.exp(np.array(self.A_log.astype(mx.float32)))
        return rates

    def scale(self, decay: NDArray[np.float32], write: float) -> None:
        """Multiply A by `decay`, (units, modes) or (), and B by `write` from now on."""
        shape = self.A_log.shape if "A_log" in self else (-1,)
        self["_decay"] = mx.array(decay.reshape(shape) if decay.size > 1 else decay.reshape(()))
        self._write, self._A_of = write, None

    def written(self, B: mx.array) -> mx.array:
        """B as the scan takes it."""
        return B if self._write == 1.0 else (B.astype(mx.float32) * self._write).astype(B.dtype)

    def A(self) -> mx.array:
        """A = -exp(A_log) in float32, scaled as `scale` said, computed once for each array that is A_log."""
        # Names with an underscore are no parameters. Loading puts another array into A_log, which this notices.
        if self.get("_A_of") is not self.A_log:
            self._A = -mx.exp(self.A_log.astype(mx.float32)) * self.get("_decay", 1.0)
            self._A_of = self.A_log
        A: mx.array = self._A
        return A
