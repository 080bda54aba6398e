"""Whole models in float64 NumPy, written from the papers and the originals' layout, not from the package."""

from __future__ import annotations

import numpy as np

from longmamba_mlx.models.config.parse import ModelConfig


def silu(x):
    return x / (1 + np.exp(-x))


def rms(x, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


def steps(raw, threshold, limit=(0.0, np.inf)):
    step = np.clip(np.logaddexp(0, raw), *limit)
    return step if threshold is None else np.where(raw > np.asarray(threshold, np.float64), step, 0.0)


def conv(x, kernel, bias):
    """x (l, c), kernel (c, k): y_t = sum_j kernel[:, j] x_(t - k + 1 + j)."""
    taps = kernel.shape[1]
    y = np.zeros_like(x)
    for t in range(len(x)):
        for j in range(taps):
            if t - taps + 1 + j >= 0:
                y[t] += kernel[:, j] * x[t - taps + 1 + j]
    return silu(y + bias)


def forward(config: ModelConfig, w: dict[str, np.ndarray], ids: np.ndarray, thresholds=None) -> np.ndarray:
    """Token ids (l,) -> logits (l, vocab)."""
    table = w["backbone.embeddings.weight"]
    hidden = table[ids]
    mixer = mamba1 if config.is_mamba1 else mamba2
    for index in range(config.n_layer):
        at = f"backbone.layers.{index}."
        normed = rms(hidden, config.norm_eps) * w[at + "norm.weight"]
        part = {name.removeprefix(at + "mixer."): value for name, value in w.items() if name.startswith(at)}
        hidden = hidden + mixer(config, part, normed, None if thresholds is None else thresholds[index])
    normed = rms(hidden, config.norm_eps) * w["backbone.norm_f.weight"]
    return normed @ (table if config.tie_embeddings else w["lm_head.weight"]).T


def mamba1(config, w, x, threshold):
    xz = x @ w["in_proj.weight"].T + w.get("in_proj.bias", 0.0)
    u, z = np.split(xz, 2, axis=-1)
    u = conv(u, w["conv1d.weight"][:, :, 0], w.get("conv1d.bias", 0.0))
    low, b_in, c_out = np.split(u @ w["x_proj.weight"].T, [config.dt_rank, config.dt_rank + config.d_state], axis=-1)
    if config.mixer_rms_eps is not None:
        low, b_in, c_out = (rms(part, config.mixer_rms_eps) for part in (low, b_in, c_out))
    step = steps(low @ w["dt_proj.weight"].T + w["dt_proj.bias"], threshold)
    rate = -np.exp(w["A_log"])
    state = np.zeros_like(rate)
    y = np.zeros_like(u)
    for t in range(len(x)):
        state = np.exp(step[t][:, None] * rate) * state + np.outer(step[t] * u[t], b_in[t])
        y[t] = state @ c_out[t] + w["D"] * u[t]
    return (y * silu(z)) @ w["out_proj.weight"].T + w.get("out_proj.bias", 0.0)


def mamba2(config, w, x, threshold):
    width = config.n_groups * config.d_state
    zxbcdt = x @ w["in_proj.weight"].T + w.get("in_proj.bias", 0.0)
    z, xbc, dt = np.split(zxbcdt, [config.d_inner, 2 * config.d_inner + 2 * width], axis=-1)
    xbc = conv(xbc, w["conv1d.weight"][:, :, 0], w.get("conv1d.bias", 0.0))
    u, b_in, c_out = np.split(xbc, [config.d_inner, config.d_inner + width], axis=-1)
    step = steps(dt + w["dt_bias"], threshold, config.time_step_limit)
    y = np.zeros_like(u)
    per_group = config.n_heads // config.n_groups
    for head in range(config.n_heads):
        group = slice(head // per_group * config.d_state, (head // per_group + 1) * config.d_state)
        mine = slice(head * config.headdim, (head + 1) * config.headdim)
        state = np.zeros((config.headdim, config.d_state))
        for t in range(len(x)):
            decay = np.exp(-np.exp(w["A_log"][head]) * step[t, head])
            state = decay * state + step[t, head] * np.outer(u[t, mine], b_in[t, group])
            y[t, mine] = state @ c_out[t, group] + w["D"][head] * u[t, mine]
    gate = silu(z)
    y = y if config.norm_before_gate else y * gate
    y = rms(y.reshape(len(x), config.n_groups, -1), config.norm_eps).reshape(y.shape) * w["norm.weight"]
    y = y * gate if config.norm_before_gate else y
    return y @ w["out_proj.weight"].T + w.get("out_proj.bias", 0.0)
