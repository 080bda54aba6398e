"""The ops for MLX arrays on a CPU without Apple's Accelerate (Linux): to NumPy and back.

These need values, so they cannot run inside a traced function; LONGMAMBA_KERNEL=reference can.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import mlx.core as mx
import numpy as np

from longmamba_mlx.ops.cpu import mamba3, numpy_ops
from longmamba_mlx.ops.cpu.arrays import to_mlx, to_numpy
from longmamba_mlx.ops.cpu.blas import single_threaded
from longmamba_mlx.ops.cpu.numpy_ops import Array, Counts
from longmamba_mlx.ops.inputs import Scan, ScanInputs
from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs, Mamba3Scan


@dataclass(frozen=True, slots=True)
class CPU:
    """The ops through `numpy_ops` or `numba_ops`, as `choose` decides by a layer's number of channels."""

    choose: Callable[[int], ModuleType]

    def causal_conv1d(
        self, x: mx.array, weight: mx.array, bias: mx.array | None = None, initial: mx.array | None = None
    ) -> tuple[mx.array, mx.array]:
        """As `conv.causal_conv1d`."""
        taps = np.ascontiguousarray(to_numpy(weight).T)
        conv = self.choose(x.shape[-1]).causal_conv1d
        y, window = conv(to_numpy(x), taps, _optional(bias), _optional(initial))
        return to_mlx(y, x.dtype), to_mlx(window, x.dtype)

    def gated_rms_norm(
        self, y: mx.array, z: mx.array, weight: mx.array, *, groups: int, eps: float, norm_before_gate: bool = False
    ) -> mx.array:
        """As `norm.gated_rms_norm`."""
        norm = self.choose(y.shape[-1]).gated_rms_norm
        inputs = (to_numpy(y), to_numpy(z), to_numpy(weight))
        return to_mlx(norm(*inputs, groups=groups, eps=eps, norm_before_gate=norm_before_gate), y.dtype)

    def dt_b_c_norms(
        self,
        x: mx.array,
        sizes: tuple[int, int, int],
        *,
        eps: float,
        weights: tuple[mx.array, mx.array, mx.array] | None = None,
    ) -> tuple[mx.array, mx.array, mx.array]:
        """As `norm.dt_b_c_norms`."""
        parts = numpy_ops.parts(to_numpy(x), *sizes)
        scales = (None, None, None) if weights is None else tuple(to_numpy(weight) for weight in weights)
        pairs = zip(parts, scales, strict=True)
        dt, B, C = (to_mlx(numpy_ops.rms_norm(part, scale, eps)) for part, scale in pairs)
        return dt, B, C

    def selective_scan(self, inputs: ScanInputs) -> Scan:
        """As `reference.selective_scan`."""
        ops = self.choose(inputs.x.shape[-1])
        A = np.ascontiguousarray(to_numpy(inputs.A).T)
        state = np.zeros((len(inputs.x), *A.shape), dtype=np.float32)
        if inputs.initial_state is not None:
            state[:] = to_numpy(inputs.initial_state).swapaxes(1, 2)
        y, kept = _scanned(ops, ops.selective_scan, inputs, A, state)
        return _result(inputs, y, state.swapaxes(1, 2), kept)

    def ssd_scan(self, inputs: ScanInputs) -> Scan:
        """As `reference.ssd_scan`."""
        batch, _, heads, width = inputs.x.shape
        ops = self.choose(heads * width)
        state = np.zeros((batch, heads, width, inputs.B.shape[3]), dtype=np.float32)
        if inputs.initial_state is not None:
            state[:] = to_numpy(inputs.initial_state)
        y, kept = _scanned(ops, ops.ssd_scan, inputs, to_numpy(inputs.A), state)
        return _result(inputs, y, state, kept)

    def mamba3_scan(self, inputs: Mamba3Inputs) -> Mamba3Scan:
        """As `reference.mamba3_scan`."""
        heads, width = inputs.x.shape[2:]
        # Its products are of single blocks and heads: too small to share among threads.
        with single_threaded():
            return mamba3.mamba3_scan(inputs, self.choose(heads * width).mamba3_loops)


def _scanned(
    ops: ModuleType, scan: Callable[..., Array], inputs: ScanInputs, A: Array, state: Array
) -> tuple[Array, Counts]:
    """y and how many units kept each token (b, l). Writes state."""
    raw = to_numpy(inputs.dt)
    if inputs.dt_bias is not None:
        raw = raw + to_numpy(inputs.dt_bias)
    dt, kept = ops.filtered_dt(raw, _optional(inputs.threshold), inputs.time_step_limit)
    x, B, C = to_numpy(inputs.x), to_numpy(inputs.B), to_numpy(inputs.C)
    y = scan(x, dt, A, B, C, state, _optional(inputs.D), reverse=inputs.reverse)
    if inputs.z is not None:
        ops.gate(y, to_numpy(inputs.z))
    return y, kept


def _optional(array: mx.array | None) -> Array | None:
    return None if array is None else to_numpy(array)


def _result(inputs: ScanInputs, y: Array, state: Array, kept: Counts) -> Scan:
    result = to_mlx(y, inputs.x.dtype), to_mlx(state)
    return (*result, to_mlx(kept, mx.int32)) if inputs.return_kept else result
