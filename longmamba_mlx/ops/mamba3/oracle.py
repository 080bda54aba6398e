"""Mamba-3's recurrence in float64, one token and one head at a time, in NumPy, as docs/mamba3.md writes it.

No code in common with the implementations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from longmamba_mlx.ops.inputs import UNBOUNDED
from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs
from longmamba_mlx.ops.oracle import Values, as64, filtered_dt, silu


@dataclass(frozen=True, slots=True)
class Expected:
    """What the scan gives: y, the state's parts (the angle in radians) and the counts of kept heads."""

    y: Values
    ssm: Values
    angle: Values
    k: Values
    v: Values
    kept: Any


def mamba3_scan(inputs: Mamba3Inputs) -> Expected:
    """The whole scan, from its start."""
    x, rates, b_in, c_out, trap, turns, b_bias, c_bias = map(
        as64, (inputs.x, inputs.A, inputs.B, inputs.C, inputs.trap, inputs.angle, inputs.B_bias, inputs.C_bias)
    )
    if inputs.A_floor is not None:
        sizes = np.where(rates < 0, 1 / (1 - np.minimum(rates, 0)), 1 + rates)
        rates = -np.maximum(sizes, inputs.A_floor)
    steps, keep = filtered_dt(inputs.dt, inputs.dt_bias, inputs.threshold, UNBOUNDED)
    batch, length, heads, width = x.shape
    rank, groups = b_in.shape[2:4]
    start = inputs.start
    ssm, k_last, v_last = (np.array(part).astype(np.float64) for part in (start.ssm, start.k, start.v))
    angle = np.array(start.angle).astype(np.float64) / 2**32 * 2 * math.pi
    alone = np.ones((heads, 1, width))
    mimo = inputs.mimo
    up, up_z, down = (alone,) * 3 if mimo is None else map(as64, (mimo.x, mimo.z, mimo.out))
    y = np.zeros((batch, length, heads, rank, width))
    for i, t, h in np.ndindex(batch, length, heads):
        step, group = steps[i, t, h], h * groups // heads
        angle[i, h] += math.pi * np.tanh(turns[i, t]) * step
        k = rotated(b_in[i, t, :, group] + b_bias[h], angle[i, h], mimo is None)
        q = rotated(c_out[i, t, :, group] + c_bias[h], angle[i, h], mimo is None)
        decay, share = np.exp(rates[i, t, h] * step), 1 / (1 + np.exp(-trap[i, t, h]))
        before = (v_last[i, h] * up[h]).T @ k_last[i, h]
        now = (x[i, t, h] * up[h]).T @ k
        ssm[i, h] = decay * ssm[i, h] + (1 - share) * step * decay * before + share * step * now
        y[i, t, h] = q @ ssm[i, h].T
        if keep[i, t, h]:
            k_last[i, h], v_last[i, h] = k, x[i, t, h]
    if inputs.D is not None:
        y += as64(inputs.D)[:, None, None] * x[:, :, :, None] * up
    if inputs.z is not None:
        y *= silu(as64(inputs.z)[:, :, :, None] * up_z)
    if mimo is None:
        y = y[:, :, :, 0]
    elif inputs.z is None:
        y = y.swapaxes(2, 3)
    else:
        y = (y * down).sum(axis=3)
    return Expected(y, ssm, angle, k_last, v_last, keep.sum(-1))


def rotated(rows: Values, angle: Values, neighbours: bool) -> Values:
    """rows (r, n), pair by pair."""
    rows = rows.copy()
    for pair, turn in enumerate(angle):
        i, j = (2 * pair, 2 * pair + 1) if neighbours else (pair, rows.shape[1] // 2 + pair)
        rows[:, i], rows[:, j] = (
            rows[:, i] * math.cos(turn) - rows[:, j] * math.sin(turn),
            rows[:, i] * math.sin(turn) + rows[:, j] * math.cos(turn),
        )
    return rows
