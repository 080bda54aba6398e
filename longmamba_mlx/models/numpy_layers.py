"""Whole layers in NumPy, for a CPU without Apple's Accelerate.

On such a machine each hand-over between MLX and NumPy costs more than a small layer's arithmetic. So a loaded
model's blocks are turned into these twins, which take an MLX array in and give one out and stay in NumPy
between. Parameters keep their names, their memory (float32 weights are read through the buffer protocol) and
their values: change them only before `use_numpy_layers`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map

from longmamba_mlx.models.base import Block, LanguageModel, Layer
from longmamba_mlx.models.config.parse import ModelConfig
from longmamba_mlx.models.families.mamba import MambaMixer
from longmamba_mlx.models.families.mamba2 import Mamba2Mixer
from longmamba_mlx.models.mixer import Mixer
from longmamba_mlx.models.state import LayerState, there
from longmamba_mlx.ops.cpu import numpy_ops
from longmamba_mlx.ops.cpu.bridge import fastest, single_threaded, to_mlx, to_numpy
from longmamba_mlx.ops.cpu.linear import use_numpy_linears
from longmamba_mlx.ops.cpu.numpy_ops import Array, Counts

# Tokens a layer works on at once. For a narrow layer the temporaries then fit a core's second-level cache
# (twice as fast as 512 tokens at d_inner 256); a wide layer's matrix products want more rows (10 % at d_inner
# 1536).
_NARROW_TILE, _WIDE_TILE = 128, 256
_WIDE = 1024

_REUSED_BYTES = 24 << 20

Weights = dict[str, Array]


class NumpyBlock(Block):
    """A `Block` whose norm and mixer run in NumPy. What it is given is private, so that it is no parameter."""

    _weights: Weights
    _config: ModelConfig
    _fast: ModuleType  # `arrays`, or what means the same
    _token: tuple[Any, Any] | None  # weights for a single token as one call, where `_fast` has that

    def take(self, weights: Weights, config: ModelConfig, fast: ModuleType) -> None:
        """Hold what `run` needs."""
        self._weights, self._config, self._fast = weights, config, fast
        inner = None if fast is numpy_ops else self._token_weights()
        self._token = None if inner is None else (self._around(), inner)

    def run(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        values = to_numpy(hidden)
        limit = None if threshold is None else to_numpy(threshold)
        window = there(state.conv)
        conv, copied = to_numpy(window), self._copy(there(state.ssm))
        ssm = np.asarray(copied)  # its memory, which the scan changes in place: no other array has it
        read = self._read_token if values.shape[:2] == (1, 1) and self._token is not None else self._read
        with self._threads():
            output, conv, kept = read(values, conv, ssm, limit)
        after = LayerState(conv=to_mlx(conv, window.dtype), ssm=self._as_stored(copied))
        if not return_kept:
            return to_mlx(output), after, None
        counts = np.full(values.shape[:2], self._config.units, dtype=np.int32) if kept is None else kept
        return to_mlx(output), after, to_mlx(counts, mx.int32)

    def _read(self, values: Array, conv: Array, ssm: Array, limit: Array | None) -> tuple[Array, Array, Counts | None]:
        """values (b, l, d_model) -> the same after this layer, the next conv window, how many units kept each token
        (b, l), None: all. Writes ssm."""
        output = np.empty(values.shape, dtype=np.float32)
        kept = np.empty(values.shape[:2], dtype=np.int32)
        for tile in _tiles(values.shape[1], self._config.d_inner):
            mixed, conv, kept[:, tile] = self._mix(self._normed(values[:, tile]), conv, ssm, limit)
            np.add(values[:, tile], mixed, out=output[:, tile])
        return output, conv, kept

    def _read_token(
        self, values: Array, conv: Array, ssm: Array, limit: Array | None
    ) -> tuple[Array, Array, Counts | None]:
        """As `_read`, for one token of one sequence."""
        around, weights = self._token or (None, None)
        steps = self._config.time_step_limit
        out = self._token_layer()(values[0, 0], around, conv[0], ssm[0], limit, weights, steps)
        return out.hidden[None, None], out.window[None], None if limit is None else out.kept[None]

    def raw_step(self, hidden: mx.array, state: LayerState) -> tuple[mx.array, LayerState]:
        window = there(state.conv)
        values, conv = to_numpy(hidden), to_numpy(window)
        raws = []
        with self._threads():
            for tile in _tiles(values.shape[1], self._config.d_inner):
                raw, conv = self._raw(self._normed(values[:, tile]), conv)
                raws.append(raw)
        after = LayerState(conv=to_mlx(conv, window.dtype), ssm=state.ssm)
        return to_mlx(np.concatenate(raws, axis=1)), after

    def _threads(self) -> AbstractContextManager[object]:
        """One thread for a narrow layer: its products are too small to share, and the threads of a BLAS wait for each
        other in a busy loop, which on a machine with other work made reading ten times slower."""
        return single_threaded() if self._config.d_inner < _WIDE else nullcontext()

    def _normed(self, values: Array) -> Array:
        normed: Array = self._fast.rms_norm(values, self._weights["norm.weight"], self._config.norm_eps)
        return normed

    def _linear(self, name: str, x: Array) -> Array:
        y: Array = self._fast.linear(x, self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias"))
        return y

    def _conv(self, x: Array, conv: Array) -> tuple[Array, Array]:
        y, window = self._fast.causal_conv1d(x, self._weights["taps"], self._weights.get("conv1d.bias"), conv)
        return y, window

    def _bias(self, name: str, width: int) -> Array:
        """The bias (width,) of a part of the mixer, zeros where it has none."""
        bias = self._weights.get(f"{name}.bias")
        return np.zeros(width, dtype=np.float32) if bias is None else bias

    def _copy(self, ssm: mx.array) -> mx.array:
        """A copy of the scan's state, laid out as `arrays` works on it."""
        return mx.array(to_numpy(ssm))

    def _as_stored(self, ssm: mx.array) -> mx.array:
        return ssm

    def _mix(self, x: Array, conv: Array, ssm: Array, threshold: Array | None) -> tuple[Array, Array, Counts]:
        """x (b, l, d_model) -> the mixer's output, the next conv window, how many units kept each token (b, l). Writes
        ssm."""
        raise NotImplementedError

    def _around(self) -> Any:
        """What `_token_layer` takes of the weights around the mixer."""
        weights = self._weights
        parts: list[Array] = []
        for name in ("in_proj", "out_proj"):
            product = np.ascontiguousarray(weights[f"{name}.weight"])
            parts += (product, self._bias(name, len(product)))
        return self._fast.Around(weights["norm.weight"], self._config.norm_eps, *parts)

    def _token_weights(self) -> Any:
        """What `_token_layer` takes of the mixer's weights; None where `_mix` does what that does not."""
        raise NotImplementedError

    def _token_layer(self) -> Any:
        """`compiled.mamba_layer` or its like."""
        raise NotImplementedError

    def _raw(self, x: Array, conv: Array) -> tuple[Array, Array]:
        raise NotImplementedError


class NumpyMambaBlock(NumpyBlock):
    """Mamba-1; the wiring of `mamba.MambaMixer`."""

    def _copy(self, ssm: mx.array) -> mx.array:
        # Only the first time is this more than a plain copy: `_as_stored` turns the axes and leaves the memory.
        return mx.array(np.ascontiguousarray(to_numpy(ssm).swapaxes(1, 2)))

    def _as_stored(self, ssm: mx.array) -> mx.array:
        return ssm.swapaxes(1, 2)

    def _mix(self, x: Array, conv: Array, ssm: Array, threshold: Array | None) -> tuple[Array, Array, Counts]:
        xz = self._linear("in_proj", x)
        u, conv = self._conv(xz[..., : self._config.d_inner], conv)
        raw, b_in, c_out = self._selection(u)
        step, kept = self._fast.steps(raw, threshold, self._config.time_step_limit)
        y = self._fast.selective_scan(u, step, self._weights["rate"], b_in, c_out, ssm, self._weights["D"])
        self._fast.gate(y, xz[..., self._config.d_inner :])
        return self._linear("out_proj", y), conv, kept

    def _token_weights(self) -> Any:
        weights = self._weights
        if self._config.mixer_rms_eps is not None or "x_proj.bias" in weights or "dt_proj.bias" not in weights:
            return None
        return self._fast.MambaWeights(
            taps=weights["taps"],
            bias=self._bias("conv1d", weights["taps"].shape[1]),
            x_proj=weights["x_proj.weight"],
            dt_proj=weights["dt_proj.weight"],
            dt_bias=weights["dt_proj.bias"],
            exponents=self._fast.exponents(weights["rate"]),
            skip=weights["D"],
        )

    def _token_layer(self) -> Any:
        return self._fast.mamba_layer

    def _raw(self, x: Array, conv: Array) -> tuple[Array, Array]:
        u, conv = self._conv(self._linear("in_proj", x)[..., : self._config.d_inner], conv)
        return self._selection(u)[0], conv

    def _selection(self, u: Array) -> tuple[Array, Array, Array]:
        rank, size = self._config.dt_rank, self._config.d_state
        low, b_in, c_out = numpy_ops.parts(self._linear("x_proj", u), rank, size, size)
        eps = self._config.mixer_rms_eps
        if eps is not None:
            low, b_in, c_out = (numpy_ops.rms_norm(part, None, eps) for part in (low, b_in, c_out))
        return self._linear("dt_proj", low), b_in, c_out


class NumpyMamba2Block(NumpyBlock):
    """Mamba-2; the wiring of `mamba2.Mamba2Mixer`."""

    def _mix(self, x: Array, conv: Array, ssm: Array, threshold: Array | None) -> tuple[Array, Array, Counts]:
        config, weights = self._config, self._weights
        z, x_b_c, raw = self._split(x)
        x_b_c, conv = self._conv(x_b_c, conv)
        lead, group_width = x.shape[:2], config.n_groups * config.d_state
        u, b_in, c_out = numpy_ops.parts(x_b_c, config.d_inner, group_width, group_width)
        u = u.reshape(*lead, config.n_heads, config.headdim)
        b_in, c_out = (part.reshape(*lead, config.n_groups, config.d_state) for part in (b_in, c_out))
        step, kept = self._fast.steps(raw, threshold, config.time_step_limit)
        y = self._fast.ssd_scan(u, step, weights["rate"], b_in, c_out, ssm, weights["D"])
        y = self._fast.gated_rms_norm(
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
        return self._fast.Mamba2Weights(
            taps=weights["taps"],
            bias=self._bias("conv1d", weights["taps"].shape[1]),
            dt_bias=weights["dt_bias"],
            exponents=self._fast.exponents(weights["rate"]),
            skip=weights["D"],
            norm=weights["norm"],
            groups=config.n_groups,
            eps=config.norm_eps,
            norm_before_gate=config.norm_before_gate,
        )

    def _token_layer(self) -> Any:
        return self._fast.mamba2_layer

    def _raw(self, x: Array, conv: Array) -> tuple[Array, Array]:
        _, x_b_c, raw = self._split(x)
        before = conv.shape[1]
        return raw, np.concatenate([conv, x_b_c[:, -before:]], axis=1)[:, -before:]

    def _split(self, x: Array) -> tuple[Array, Array, Array]:
        """z, x B C before the convolution, and raw steps with their bias."""
        config = self._config
        z, x_b_c, dt = numpy_ops.parts(self._linear("in_proj", x), config.d_inner, config.conv_dim, config.n_heads)
        return z, x_b_c, dt + self._weights["dt_bias"]


_TWINS: dict[type[Mixer], type[NumpyBlock]] = {MambaMixer: NumpyMambaBlock, Mamba2Mixer: NumpyMamba2Block}


def use_numpy_layers(model: LanguageModel) -> None:
    """Run `model` through NumPy from now on, with float32 weights. Quantised layers stay as they are."""
    model.update(tree_map(_as_float32, model.parameters()))
    mx.eval(model.parameters())
    fast = fastest(model.config.d_inner)
    use_numpy_linears(model, fast)
    _keep_freed_memory()
    for block in model.layers:
        twin = _twin(block)
        if twin is not None:
            weights = _weights(block)
            block.__class__ = twin
            block.take(weights, model.config, fast)


def _twin(layer: Layer) -> type[NumpyBlock] | None:
    """The twin of a layer, None for what has none: hybrid layers, mixers with options, quantised weights."""
    if type(layer) is not Block or any(isinstance(part, nn.QuantizedLinear) for part in layer.modules()):
        return None
    twin = _TWINS.get(type(layer.mixer))
    return twin if twin is not None and layer.mixer.is_plain else None


def _keep_freed_memory() -> None:
    """Make glibc reuse a layer's temporaries instead of giving their pages back to the system each time.

    Freeing one large block raises the size from which it maps and unmaps memory (up to 32 MiB): 75 page
    faults a chunk of 512 tokens instead of 4,940, and 1.7 times the speed for a small model. Elsewhere it
    does nothing.
    """
    np.empty(_REUSED_BYTES, dtype=np.uint8)


def _as_float32(array: mx.array) -> mx.array:
    return array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array


def _weights(block: Layer) -> Weights:
    """Views of a block's parameters, and what is computed from them once."""
    mixer = block.mixer
    named: dict[str, mx.array] = dict(tree_flatten(mixer.parameters()))
    weights = {name: to_numpy(array) for name, array in named.items() if name not in ("A_log", "conv1d.weight")}
    weights["norm.weight"], gated = to_numpy(block.norm.weight), weights.get("norm.weight")
    if gated is not None:
        weights["norm"] = gated
    weights["taps"] = np.ascontiguousarray(to_numpy(named["conv1d.weight"])[:, :, 0].T)
    rate = -np.exp(to_numpy(named["A_log"]))
    weights["rate"] = np.ascontiguousarray(rate.T)
    return weights


def _tiles(length: int, width: int) -> list[slice]:
    tile = _NARROW_TILE if width < _WIDE else _WIDE_TILE
    return [slice(start, min(start + tile, length)) for start in range(0, length, tile)]
