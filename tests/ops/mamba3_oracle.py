"""Mamba-3's recurrence in float64, one token and one head at a time, in NumPy; and random inputs for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from longmamba_mlx.ops.inputs import UNBOUNDED
from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs, Mamba3State, Mimo
from longmamba_mlx.ops.oracle import as64, filtered_dt, silu


@dataclass(frozen=True)
class Expected:
    """What the scan gives: y, the state's parts (the angle in radians) and the counts of kept heads."""

    y: np.ndarray
    ssm: np.ndarray
    angle: np.ndarray
    k: np.ndarray
    v: np.ndarray
    kept: np.ndarray


def oracle(inputs: Mamba3Inputs) -> Expected:
    """The recurrence as docs/mamba3.md writes it."""
    x, rates, b_in, c_out, trap, turns, b_bias, c_bias = map(
        as64, (inputs.x, inputs.A, inputs.B, inputs.C, inputs.trap, inputs.angle, inputs.B_bias, inputs.C_bias)
    )
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
        decay, share = math.exp(rates[i, t, h] * step), 1 / (1 + math.exp(-trap[i, t, h]))
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


def rotated(rows: np.ndarray, angle: np.ndarray, neighbours: bool) -> np.ndarray:
    """rows (r, n), pair by pair."""
    rows = rows.copy()
    for pair, turn in enumerate(angle):
        i, j = (2 * pair, 2 * pair + 1) if neighbours else (pair, rows.shape[1] // 2 + pair)
        rows[:, i], rows[:, j] = (
            rows[:, i] * math.cos(turn) - rows[:, j] * math.sin(turn),
            rows[:, i] * math.sin(turn) + rows[:, j] * math.cos(turn),
        )
    return rows


def mamba3_case(
    batch: int, length: int, *, mimo: bool = False, heads: int = 4, width: int = 6, groups: int = 2, size: int = 8,
    angles: int = 2, rank: int = 3, bias: float = -3.0, seed: int = 0,
) -> Mamba3Inputs:  # fmt: skip
    """All optional arguments given; about half of the steps filtered. `bias`: of the raw step sizes."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> mx.array:
        return mx.array(rng.standard_normal(shape).astype(np.float32))

    rank = rank if mimo else 1
    state = Mamba3State(
        draw(batch, heads, width, size),
        mx.array(rng.integers(0, 2**32, (batch, heads, angles)).astype(np.uint32)),
        draw(batch, heads, rank, size),
        draw(batch, heads, width),
    )
    per_head = (heads, rank, width)
    return Mamba3Inputs(
        x=draw(batch, length, heads, width),
        dt=draw(batch, length, heads),
        A=-mx.exp(draw(batch, length, heads)),
        B=draw(batch, length, rank, groups, size),
        C=draw(batch, length, rank, groups, size),
        trap=draw(batch, length, heads),
        angle=draw(batch, length, angles),
        B_bias=1 + 0.3 * draw(heads, rank, size),
        C_bias=1 + 0.3 * draw(heads, rank, size),
        D=draw(heads),
        z=draw(batch, length, heads, width),
        dt_bias=0.3 * draw(heads) + bias,
        mimo=Mimo(draw(*per_head), draw(*per_head), draw(*per_head)) if mimo else None,
        threshold=0.3 * draw(heads) + bias,
        initial_state=state,
        return_kept=True,
    )
