"""The specification of Mamba-3's filtered scan: one token after the other, in plain array operations.

Per head, with dt_t = softplus(dt_t + dt_bias) where kept, else exactly 0, and m_t = sigmoid(trap_t):

    angle_t = angle_(t-1) + pi tanh(angle'_t) dt_t            k_t = R(angle_t) (B_t + B_bias), q_t alike from C
    h_t     = a h_(t-1) + (1 - m_t) dt_t a v' k'^T + m_t dt_t v_t k_t^T        with a = exp(A_t dt_t)
    y_t     = h_t q_t + D v_t

k', v' belong to the last *kept* token (upstream: the last token). So a filtered token does not turn the
angle, neither decays the state nor writes to it, and is never a predecessor: later tokens continue as if it were
absent. It still reads the state and keeps its skip connection. (arXiv 2603.15569, sec. 3; the filter: docs/mamba3.md.)
"""

from __future__ import annotations

import mlx.core as mx

from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs, Mamba3Scan, Mamba3State
from longmamba_mlx.ops.mamba3.tokens import finished, tokens


def mamba3_scan(inputs: Mamba3Inputs) -> Mamba3Scan:
    """Mamba-3's scan, sequentially."""
    all_tokens = tokens(inputs)
    _, length, heads, width = inputs.x.shape
    up = mx.ones((heads, 1, width)) if inputs.mimo is None else inputs.mimo.x.astype(mx.float32)
    h, k, v = inputs.start.ssm, inputs.start.k, inputs.start.v
    outputs = []
    for t in range(length):
        keep, own, earlier = (
            array[:, t, :, None, None] for array in (all_tokens.keep, all_tokens.own, all_tokens.earlier)
        )
        decay = mx.exp(all_tokens.exponent[:, t])[..., None, None]
        k_now, v_now = all_tokens.k[:, t], all_tokens.v[:, t]
        h = decay * h + earlier * decay * _written(v, k, up) + own * _written(v_now, k_now, up)
        outputs.append(all_tokens.q[:, t] @ h.swapaxes(-1, -2))
        k, v = mx.where(keep, k_now, k), mx.where(keep[..., 0], v_now, v)
    y = finished(mx.stack(outputs, axis=1), inputs)
    state = Mamba3State(h, mx.take(all_tokens.angle, length - 1, axis=1), k, v)
    return inputs.result(y, state, all_tokens.keep)


def _written(v: mx.array, k: mx.array, up: mx.array) -> mx.array:
    """sum over r of (v up_r) k_r^T: v (b, h, p), k (b, h, r, n), up (h, r, p) -> (b, h, p, n)."""
    return (v[:, :, None] * up).swapaxes(-1, -2) @ k
