"""Whole layers in NumPy, for a CPU without Apple's Accelerate.

On such a machine each hand-over between MLX and NumPy costs more than a small layer's arithmetic. So the blocks of a
loaded model become instances of these classes (`numpy_layers`), which convert once on the way in and once on the way
out.

A decode step runs as one compiled call where numba is used (`_token_layer`, 1.7 times as fast a token); its wiring in
`ops.cpu.numba_decode` repeats that of `_mix`, because numba compiles functions of arrays and not classes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from copy import copy
from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.models.base import Block
from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.models.state import LayerState, require
from longmamba_mlx.ops.cpu import numpy_ops
from longmamba_mlx.ops.cpu.arrays import to_mlx, to_numpy
from longmamba_mlx.ops.cpu.blas import single_threaded
from longmamba_mlx.ops.cpu.numpy_ops import Array, Counts

# Tokens a layer works on at once: enough rows for its matrix products, few enough for its temporaries to stay in cache.
TILE = 256
_WIDE = 1024  # channels from which the threads of a BLAS share a product

Weights = dict[str, Array]


class NumpyBlock(Block):
    """A `Block` whose norm and mixer run in NumPy. Its own attributes are private, so that they are no parameters."""

    _weights: Weights
    _config: ModelConfig
    _ops: ModuleType  # numpy_ops or numba_ops
    _token: tuple[Any, Any] | None  # weights for a compiled decode step, where `_ops` has one
    _write: float = 1.0

    def prepare(self, weights: Weights, config: ModelConfig, ops: ModuleType) -> None:
        """Set what `run` needs."""
        self._weights, self._config, self._ops = weights, config, ops
        mixer = None if ops is numpy_ops else self._token_weights()
        self._token = None if mixer is None else (self._layer_weights(), mixer)

    def through(self, ops: ModuleType) -> NumpyBlock:
        """The same block reading through other `ops`."""
        if ops is self._ops:
            return self
        twin = copy(self)
        twin._ops, twin._token = ops, None
        return twin

    def run(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        values = to_numpy(hidden)
        thresholds = None if threshold is None else to_numpy(threshold)
        window = require(state.conv)
        conv, copied = to_numpy(window), self._copy(require(state.ssm))
        ssm = np.asarray(copied)  # its memory, which the scan changes in place: no other array has it
        read = self._read_token if values.shape[:2] == (1, 1) and self._token is not None else self._read
        with self._threads():
            output, conv, kept = read(values, conv, ssm, thresholds)
        after = LayerState(conv=to_mlx(conv, window.dtype), ssm=self._as_stored(copied))
        if not return_kept:
            return to_mlx(output), after, None
        counts = np.full(values.shape[:2], self._config.units, dtype=np.int32) if kept is None else kept
        return to_mlx(output), after, to_mlx(counts, mx.int32)

    def _read(
        self, values: Array, conv: Array, ssm: Array, threshold: Array | None
    ) -> tuple[Array, Array, Counts | None]:
        """Run the layer on values (b, l, d_model): its output, the next conv window, how many units kept each token
        (b, l), None: all. Writes ssm."""
        output = np.empty(values.shape, dtype=np.float32)
        kept = np.empty(values.shape[:2], dtype=np.int32)
        for tile in _tiles(values.shape[1]):
            mixed, conv, kept[:, tile] = self._mix(self._normed(values[:, tile]), conv, ssm, threshold)
            np.add(values[:, tile], mixed, out=output[:, tile])
        return output, conv, kept

    def _read_token(
        self, values: Array, conv: Array, ssm: Array, threshold: Array | None
    ) -> tuple[Array, Array, Counts | None]:
        """As `_read`, for one token of one sequence."""
        layer, mixer = self._token or (None, None)
        dt_range = self._config.time_step_limit
        out = self._token_layer()(values[0, 0], layer, conv[0], ssm[0], threshold, mixer, dt_range)
        return out.hidden[None, None], out.window[None], None if threshold is None else out.kept[None]

    def raw_step(self, hidden: mx.array, state: LayerState) -> tuple[mx.array, LayerState]:
        window = require(state.conv)
        values, conv = to_numpy(hidden), to_numpy(window)
        raws = []
        with self._threads():
            for tile in _tiles(values.shape[1]):
                raw, conv = self._raw(self._normed(values[:, tile]), conv)
                raws.append(raw)
        after = LayerState(conv=to_mlx(conv, window.dtype), ssm=state.ssm)
        return to_mlx(np.concatenate(raws, axis=1)), after

    def scale_scan(self, decay: NDArray[np.float32], write: float) -> None:
        factor = decay.reshape(self._weights["A"].T.shape).T if decay.size > 1 else decay.reshape(())
        self._weights = {**self._weights, "A": np.ascontiguousarray(self._weights["A"] * factor)}
        self._token, self._write = None, write

    def _written(self, B: Array) -> Array:
        """B as the scan takes it."""
        return B if self._write == 1.0 else B * np.float32(self._write)

    def _threads(self) -> AbstractContextManager[object]:
        """One thread for a narrow layer: its products are too small to share, and the threads of a BLAS wait for each
        other in a busy loop, which on a machine with other work made reading ten times slower."""
        return single_threaded() if self._config.d_inner < _WIDE else nullcontext()

    def _normed(self, values: Array) -> Array:
        normed: Array = self._ops.rms_norm(values, self._weights["norm.weight"], self._config.norm_eps)
        return normed

    def _linear(self, name: str, x: Array) -> Array:
        y: Array = self._ops.linear(x, self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias"))
        return y

    def _conv(self, x: Array, conv: Array) -> tuple[Array, Array]:
        y, window = self._ops.causal_conv1d(x, self._weights["taps"], self._weights.get("conv1d.bias"), conv)
        return y, window

    def _bias(self, name: str, width: int) -> Array:
        """The bias (width,) of a part of the mixer, zeros where it has none."""
        bias = self._weights.get(f"{name}.bias")
        return np.zeros(width, dtype=np.float32) if bias is None else bias

    def _copy(self, ssm: mx.array) -> mx.array:
        """A copy of the scan's state, laid out as `_ops` works on it."""
        return mx.array(to_numpy(ssm))

    def _as_stored(self, ssm: mx.array) -> mx.array:
        return ssm

    def _mix(self, hidden: Array, conv: Array, ssm: Array, threshold: Array | None) -> tuple[Array, Array, Counts]:
        """Mix hidden (b, l, d_model): the mixer's output, the next conv window, how many units kept each token (b, l).
        Writes ssm."""
        raise NotImplementedError

    def _layer_weights(self) -> Any:
        """The `LayerWeights` of `_token_layer`."""
        weights = self._weights
        parts: list[Array] = []
        for name in ("in_proj", "out_proj"):
            product = np.ascontiguousarray(weights[f"{name}.weight"])
            parts += (product, self._bias(name, len(product)))
        return self._ops.LayerWeights(weights["norm.weight"], self._config.norm_eps, *parts)

    def _token_weights(self) -> Any:
        """The mixer's weights for `_token_layer`; None where that lacks an option of `_mix`."""
        raise NotImplementedError

    def _token_layer(self) -> Any:
        """`numba_ops.mamba_layer` or `mamba2_layer`."""
        raise NotImplementedError

    def _raw(self, hidden: Array, conv: Array) -> tuple[Array, Array]:
        """Raw dt (b, l, units) of hidden (b, l, d_model), and the next conv window."""
        raise NotImplementedError


class NumpyMambaBlock(NumpyBlock):
    """Mamba-1; the wiring of `mamba.MambaMixer`."""

    def _copy(self, ssm: mx.array) -> mx.array:
        # Only the first time is this more than a plain copy: `_as_stored` turns the axes and leaves the memory.
        return mx.array(np.ascontiguousarray(to_numpy(ssm).swapaxes(1, 2)))

    def _as_stored(self, ssm: mx.array) -> mx.array:
        return ssm.swapaxes(1, 2)

    def _mix(self, hidden: Array, conv: Array, ssm: Array, threshold: Array | None) -> tuple[Array, Array, Counts]:
        xz = self._linear("in_proj", hidden)
        x, conv = self._conv(xz[..., : self._config.d_inner], conv)
        raw, B, C = self._selection(x)
        dt, kept = self._ops.filtered_dt(raw, threshold, self._config.time_step_limit)
        y = self._ops.selective_scan(x, dt, self._weights["A"], self._written(B), C, ssm, self._weights["D"])
        self._ops.gate(y, xz[..., self._config.d_inner :])
        return self._linear("out_proj", y), conv, kept

    def _token_weights(self) -> Any:
        weights = self._weights
        if self._config.mixer_rms_eps is not None or "x_proj.bias" in weights or "dt_proj.bias" not in weights:
            return None
        return self._ops.MambaWeights(
            taps=weights["taps"],
            bias=self._bias("conv1d", weights["taps"].shape[1]),
            x_proj=weights["x_proj.weight"],
            dt_proj=weights["dt_proj.weight"],
            dt_bias=weights["dt_proj.bias"],
            A_log2e=self._ops.times_log2e(weights["A"]),
            D=weights["D"],
        )

    def _token_layer(self) -> Any:
        return self._ops.mamba_layer

    def _raw(self, hidden: Array, conv: Array) -> tuple[Array, Array]:
        x, conv = self._conv(self._linear("in_proj", hidden)[..., : self._config.d_inner], conv)
        return self._selection(x)[0], conv

    def _selection(self, x: Array) -> tuple[Array, Array, Array]:
        """Raw dt (b, l, d_inner), bias included, and B and C (b, l, n)."""
        rank, size = self._config.dt_rank, self._config.d_state
        dt, B, C = numpy_ops.parts(self._linear("x_proj", x), rank, size, size)
        eps = self._config.mixer_rms_eps
        if eps is not None:
            dt, B, C = (numpy_ops.rms_norm(part, None, eps) for part in (dt, B, C))
        return self._linear("dt_proj", dt), B, C


class NumpyMamba2Block(NumpyBlock):
    """Mamba-2; the wiring of `mamba2.Mamba2Mixer`."""

    def _mix(self, hidden: Array, conv: Array, ssm: Array, threshold: Array | None) -> tuple[Array, Array, Counts]:
        config, weights = self._config, self._weights
        z, x_b_c, raw = self._split(hidden)
        x_b_c, conv = self._conv(x_b_c, conv)
        lead, group_width = hidden.shape[:2], config.n_groups * config.d_state
        x, B, C = numpy_ops.parts(x_b_c, config.d_inner, group_width, group_width)
        x = x.reshape(*lead, config.n_heads, config.headdim)
        B, C = (part.reshape(*lead, config.n_groups, config.d_state) for part in (B, C))
        dt, kept = self._ops.filtered_dt(raw, threshold, config.time_step_limit)
        y = self._ops.ssd_scan(x, dt, weights["A"], self._written(B), C, ssm, weights["D"])
        y = self._ops.gated_rms_norm(
            y.reshape(*lead, config.d_inner),
            z,
            weights["norm"],
            groups=config.n_groups,
            eps=config.norm_eps,
            norm_before_gate=config.norm_before_gate,
        )
        return self._linear("out_proj", y), conv, kept

    def _token_weights(self) -> Any:
        config, weights = self._config, self._weights
        return self._ops.Mamba2Weights(
            taps=weights["taps"],
            bias=self._bias("conv1d", weights["taps"].shape[1]),
            dt_bias=weights["dt_bias"],
            A_log2e=self._ops.times_log2e(weights["A"]),
            D=weights["D"],
            norm=weights["norm"],
            groups=config.n_groups,
            eps=config.norm_eps,
            norm_before_gate=config.norm_before_gate,
        )

    def _token_layer(self) -> Any:
        return self._ops.mamba2_layer

    def _raw(self, hidden: Array, conv: Array) -> tuple[Array, Array]:
        _, x_b_c, raw = self._split(hidden)
        before = conv.shape[1]
        return raw, np.concatenate([conv, x_b_c[:, -before:]], axis=1)[:, -before:]

    def _split(self, hidden: Array) -> tuple[Array, Array, Array]:
        """z, x B C before the convolution, and raw dt, bias included."""
        config = self._config
        z, x_b_c, dt = numpy_ops.parts(self._linear("in_proj", hidden), config.d_inner, config.conv_dim, config.n_heads)
        return z, x_b_c, dt + self._weights["dt_bias"]


def _tiles(length: int) -> list[slice]:
    return [slice(start, min(start + TILE, length)) for start in range(0, length, TILE)]
