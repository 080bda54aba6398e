"""Mamba-3's scan for MLX arrays in NumPy: in blocks of matrix products, or in loops that numba compiles."""

from __future__ import annotations

from types import ModuleType

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.ops.cpu import mamba3_blocks, mamba3_looped
from longmamba_mlx.ops.cpu.arrays import to_mlx, to_numpy
from longmamba_mlx.ops.cpu.mamba3_sequence import Carried, Sequence, Wide
from longmamba_mlx.ops.cpu.numpy_ops import Array, silu
from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs, Mamba3Scan, Mamba3State
from longmamba_mlx.ops.mamba3.rates import decay_rates
from longmamba_mlx.ops.mamba3.turns import whole_steps, whole_turns


def mamba3_scan(inputs: Mamba3Inputs, loops: ModuleType | None = None) -> Mamba3Scan:
    """As `reference.mamba3_scan`; through `loops`, which is `numba_mamba3`, where that is given and can."""
    loops = loops if loops is not None and inputs.rank <= loops.ROWS else None
    batch, length, heads, width = inputs.x.shape
    step, keep = _steps(inputs)
    share = _sigmoid(to_numpy(inputs.trap).astype(np.float64))
    A = to_numpy(inputs.A)
    exponent = (A if inputs.A_floor is None else -decay_rates(np, A, inputs.A_floor)) * step
    bias = None if inputs.dt_bias is None else to_numpy(inputs.dt_bias)
    whole = whole_steps(np, to_numpy(inputs.dt), bias, keep)
    turn = whole_turns(np, to_numpy(inputs.angle))
    x, b_in, c_out = to_numpy(inputs.x), to_numpy(inputs.B), to_numpy(inputs.C)
    up = np.ones((heads, 1, width), np.float32) if inputs.mimo is None else to_numpy(inputs.mimo.x)
    biases = to_numpy(inputs.B_bias), to_numpy(inputs.C_bias)

    start = inputs.start
    carried = [np.array(array) for array in start.arrays()]
    y = np.empty((batch, length, heads, inputs.rank, width), np.float32)
    for i in range(batch):
        sequence = Sequence(
            step=np.ascontiguousarray(whole[i].T),
            keep=None if keep is None else np.ascontiguousarray(keep[i].T),
            exponent=np.ascontiguousarray(exponent[i].T),
            own=np.ascontiguousarray((share[i] * step[i]).T, np.float32),
            earlier=np.ascontiguousarray(((1 - share[i]) * step[i]).T, np.float32),
            turn=turn[i],
            x=x[i].swapaxes(0, 1),
            b_in=b_in[i].transpose(2, 0, 1, 3),
            c_out=c_out[i].transpose(2, 0, 1, 3),
        )
        state = Carried(*(array[i] for array in carried))
        given = (sequence, state, y[i], up, biases)
        if loops is None:
            mamba3_blocks.scan(*given, neighbours=inputs.neighbours)
        else:
            mamba3_looped.scan(loops, *given, neighbours=inputs.neighbours)
    ssm, angle, k, v = carried
    after = Mamba3State(to_mlx(ssm), mx.array(angle), to_mlx(k), to_mlx(v))
    finished = _finished(y, inputs) if loops is None or inputs.z is None else mamba3_looped.finished(loops, y, inputs)
    result = to_mlx(finished, inputs.x.dtype), after
    if not inputs.return_kept:
        return result
    counts = np.full((batch, length), heads, np.int32) if keep is None else keep.sum(-1, dtype=np.int32)
    return (*result, to_mlx(counts, mx.int32))


def _steps(inputs: Mamba3Inputs) -> tuple[Wide, NDArray[np.bool_] | None]:
    """Step sizes (b, l, h), 0 where filtered, and what is kept, None: all. The filter compares float32 sums."""
    raw = to_numpy(inputs.dt)
    wide = raw.astype(np.float64)
    if inputs.dt_bias is not None:
        bias = to_numpy(inputs.dt_bias)
        raw, wide = raw + bias, wide + bias
    # float64, as there are few of them: what they make of the angle adds up over the text.
    step = np.maximum(wide, 0.0) + np.log1p(np.exp(-np.abs(wide)))
    if inputs.threshold is None:
        return step, None
    keep = raw > to_numpy(inputs.threshold)
    return step * keep, keep


def _sigmoid(x: Wide) -> Wide:
    result: Wide = 0.5 * (1.0 + np.tanh(0.5 * x))
    return result


def _finished(y: Array, inputs: Mamba3Inputs) -> Array:
    """As `tokens.finished`, in NumPy: y (b, l, h, r, p), changed in place."""
    v, mimo = to_numpy(inputs.x)[:, :, :, None], inputs.mimo
    if inputs.D is not None:
        skip = to_numpy(inputs.D)[:, None, None]
        y += v * (skip if mimo is None else skip * to_numpy(mimo.x))
    if inputs.z is not None:
        z = to_numpy(inputs.z)[:, :, :, None]
        y *= silu(z if mimo is None else z * to_numpy(mimo.z))
    if mimo is None:
        return y[:, :, :, 0]
    if inputs.z is None:
        return y.swapaxes(2, 3)
    result: Array = np.einsum("blhrp,hrp->blhp", y, to_numpy(mimo.out))
    return result
