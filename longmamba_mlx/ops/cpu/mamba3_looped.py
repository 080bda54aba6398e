"""Mamba-3's scan through the loops of `numba_mamba3`, which are given: numba is an optional package."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from longmamba_mlx.ops.cpu.arrays import to_numpy
from longmamba_mlx.ops.cpu.mamba3_sequence import Carried, Sequence, weights_of_the_next
from longmamba_mlx.ops.cpu.numpy_ops import Array
from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs


def scan(
    loops: ModuleType,
    sequence: Sequence,
    state: Carried,
    y: Array,
    up: Array,
    biases: tuple[Array, Array],
    *,
    neighbours: bool,
) -> None:
    """As `mamba3_blocks.scan`, one head after the other."""
    later, first = weights_of_the_next(sequence)
    x, b_in, c_out = (
        np.ascontiguousarray(array)
        for array in (
            sequence.x.swapaxes(0, 1),
            sequence.b_in.transpose(1, 2, 0, 3),
            sequence.c_out.transpose(1, 2, 0, 3),
        )
    )
    tokens = loops.Tokens(
        turns=sequence.turn,
        step=sequence.step,
        decay=np.exp(sequence.exponent).astype(np.float32),
        own=sequence.own,
        later=later,
        keep=np.ones(later.shape, np.bool_) if sequence.keep is None else sequence.keep,
        x=x,
        B=b_in,
        C=c_out,
    )
    fixed = loops.Fixed(*(np.ascontiguousarray(array) for array in (*biases, up)), neighbours)
    whole = loops.State(state.ssm, state.angle, state.k, state.v)
    loops.scan(tokens, fixed, whole, np.ascontiguousarray(first), y)


def finished(loops: ModuleType, y: Array, inputs: Mamba3Inputs) -> Array:
    """As `mamba3.finished`, where there is a gate."""
    _, _, heads, rank, width = y.shape
    mimo, alone = inputs.mimo, np.ones((heads, rank, width), np.float32)
    up, up_z, down = (alone,) * 3 if mimo is None else (to_numpy(part) for part in (mimo.x, mimo.z, mimo.out))
    fixed = [np.zeros(heads, np.float32) if inputs.D is None else to_numpy(inputs.D), up, up_z, down]
    given = [to_numpy(inputs.x), to_numpy(inputs.z) if inputs.z is not None else None]
    out = np.empty(inputs.x.shape, np.float32)
    for i in range(len(y)):
        tokens = (np.ascontiguousarray(array[i]) for array in given if array is not None)
        loops.finish(y[i], *tokens, *(np.ascontiguousarray(array) for array in fixed), out[i])
    return out
