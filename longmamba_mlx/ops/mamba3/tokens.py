"""What Mamba-3's scan makes of each token before any recurrence: dt, decay, weights of writes, rotated k and q."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from longmamba_mlx.ops.activations import silu
from longmamba_mlx.ops.filtered_dt import filtered_dt
from longmamba_mlx.ops.inputs import UNBOUNDED
from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs
from longmamba_mlx.ops.mamba3.rates import decay_rates
from longmamba_mlx.ops.mamba3.turns import direction, turned, whole_steps, whole_turns


@dataclass(frozen=True, slots=True)
class Tokens:
    """All tokens of one call, float32.

    keep (b, l, h) bool; exponent = A dt, own = sigmoid(trap) dt, earlier = (1 - sigmoid(trap)) dt, (b, l, h)
    each: the decay's logarithm and the weights of the token's own write and of that of the kept token before it. v
    (b, l, h, p); k, q (b, l, h, r, n), biased and rotated; angle (b, l, h, s) uint32, after each token.
    """

    keep: mx.array
    exponent: mx.array
    own: mx.array
    earlier: mx.array
    v: mx.array
    k: mx.array
    q: mx.array
    angle: mx.array


def tokens(inputs: Mamba3Inputs) -> Tokens:
    """Everything that needs no recurrence but the angle's, which is a sum of integers."""
    dt, keep = filtered_dt(inputs.dt, inputs.dt_bias, inputs.threshold, UNBOUNDED)
    A = inputs.A.astype(mx.float32)
    A = A if inputs.A_floor is None else -decay_rates(mx, A, inputs.A_floor)
    share = mx.sigmoid(inputs.trap.astype(mx.float32))
    own = share * dt
    turn, raw, bias = (_float32(array) for array in (inputs.angle, inputs.dt, inputs.dt_bias))
    steps = whole_steps(mx, raw, bias, keep)[..., None]
    angle = inputs.start.angle[:, None] + mx.cumsum(turned(mx, whole_turns(mx, turn)[:, :, None], steps), axis=1)
    k, q = (
        rotated(biased(array, bias, inputs.heads), angle, inputs.neighbours)
        for array, bias in ((inputs.B, inputs.B_bias), (inputs.C, inputs.C_bias))
    )
    return Tokens(
        keep=keep,
        exponent=A * dt,
        own=own,
        earlier=dt - own,
        v=inputs.x.astype(mx.float32),
        k=k,
        q=q,
        angle=angle,
    )


def _float32(array: mx.array | None) -> mx.array | None:
    return None if array is None else array.astype(mx.float32)


def biased(array: mx.array, bias: mx.array, heads: int) -> mx.array:
    """B or C (b, l, r, g, n) for each head, plus bias (h, r, n): (b, l, h, r, n) float32."""
    by_group = array.astype(mx.float32).swapaxes(2, 3)
    return mx.repeat(by_group, heads // array.shape[3], axis=2) + bias.astype(mx.float32)


def rotated(array: mx.array, angle: mx.array, neighbours: bool) -> mx.array:
    """array (b, l, h, r, n) with its pairs of dimensions turned by angle (b, l, h, s)."""
    cos, sin = direction(angle[..., None, :])
    lead, count = array.shape[:-1], angle.shape[-1]
    pairs = array.reshape(*lead, -1, 2) if neighbours else array.reshape(*lead, 2, -1).swapaxes(-1, -2)
    first, second = pairs[..., :count, 0], pairs[..., :count, 1]
    turned_pairs = mx.stack([first * cos - second * sin, first * sin + second * cos], axis=-1)
    pairs = mx.concatenate([turned_pairs, pairs[..., count:, :]], axis=-2)
    return (pairs if neighbours else pairs.swapaxes(-1, -2)).reshape(array.shape)


def finished(y: mx.array, inputs: Mamba3Inputs) -> mx.array:
    """Skip, gate and projection back to one: y (b, l, h, r, p) -> as `ops.mamba3_scan` returns it."""
    v = inputs.x.astype(mx.float32)[:, :, :, None]
    mimo = inputs.mimo
    if inputs.D is not None:
        skip = inputs.D.astype(mx.float32)[:, None, None]
        y = y + skip * (v if mimo is None else v * mimo.x.astype(mx.float32))
    if inputs.z is not None:
        z = inputs.z.astype(mx.float32)[:, :, :, None]
        y = y * silu(z if mimo is None else z * mimo.z.astype(mx.float32))
    if mimo is None:
        y = y[:, :, :, 0]
    elif inputs.z is None:
        y = y.swapaxes(2, 3)
    else:
        y = (y * mimo.out.astype(mx.float32)).sum(axis=3)
    return y.astype(inputs.x.dtype)
