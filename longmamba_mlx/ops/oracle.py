"""The ops' recurrences in float64, one token after the other, in NumPy: what `selftest` compares with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Case = dict[str, Any]


def _softplus(x: Values) -> Values:
    softened: Values = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return softened


def _gate(y: Values, z: Values | None) -> Values:
    return y if z is None else y * (z / (1 + np.exp(-z)))


def _steps(case: Case) -> tuple[Values, NDArray[np.bool_]]:
    """Step sizes, exactly 0 where filtered, and what was kept. What is compared is one float32 addition."""
    bias = np.float64(0.0) if case.get("dt_bias") is None else case["dt_bias"]
    raw32 = case["dt"].astype(np.float32) + np.asarray(bias).astype(np.float32)
    kept = raw32 > (-np.inf if case.get("threshold") is None else case["threshold"].astype(np.float32))
    low, high = case.get("time_step_limit", (0.0, math.inf))
    return np.where(kept, np.clip(_softplus(case["dt"] + bias), low, high), 0.0), kept


def selective_scan(**case: Any) -> tuple[Values, Values, NDArray[np.int64]]:
    """Mamba-1 in float64, one token after the other."""
    x, rate, state = case["x"], case["A"], case.get("initial_state")
    step, kept = _steps(case)
    h = np.zeros((len(x), *rate.shape)) if state is None else state.copy()
    y = np.zeros_like(x)
    for t in range(x.shape[1])[:: -1 if case.get("reverse") else 1]:
        h = np.exp(step[:, t, :, None] * rate) * h + (step[:, t] * x[:, t])[..., None] * case["B"][:, t, None]
        y[:, t] = (h * case["C"][:, t, None]).sum(-1) + case["D"] * x[:, t]
    return _gate(y, case.get("z")), h, kept.sum(-1)


def ssd_scan(**case: Any) -> tuple[Values, Values, NDArray[np.int64]]:
    """Mamba-2 in float64, one token after the other."""
    x, state = case["x"], case.get("initial_state")
    step, kept = _steps(case)
    b_in, c_out = (np.repeat(case[name], x.shape[2] // case[name].shape[2], axis=2) for name in ("B", "C"))
    h = np.zeros((len(x), *x.shape[2:], b_in.shape[3])) if state is None else state.copy()
    y = np.zeros_like(x)
    for t in range(x.shape[1])[:: -1 if case.get("reverse") else 1]:
        decay = np.exp(step[:, t] * case["A"])[..., None, None]
        h = decay * h + (step[:, t, :, None] * x[:, t])[..., None] * b_in[:, t, :, None]
        y[:, t] = (h * c_out[:, t, :, None]).sum(-1) + case["D"][:, None] * x[:, t]
    return _gate(y, case.get("z")), h, kept.sum(-1)


def causal_conv1d(x: Values, weight: Values, bias: Values, initial: Values) -> tuple[Values, Values]:
    """The convolution in float64."""
    padded = np.concatenate([initial, x], axis=1)
    taps = weight.shape[1]
    y = bias + sum(padded[:, tap : tap + x.shape[1]] * weight[:, tap] for tap in range(taps))
    return _gate(np.ones_like(y), y), padded[:, x.shape[1] :]


def gated_rms_norm(
    y: Values, z: Values, weight: Values, groups: int, eps: float, norm_before_gate: bool
) -> tuple[Values]:
    """The gated norm in float64."""
    value = y if norm_before_gate else _gate(y, z)
    split = value.reshape(*y.shape[:2], groups, -1)
    normed = (split / np.sqrt((split**2).mean(-1, keepdims=True) + eps)).reshape(y.shape) * weight
    return (_gate(normed, z) if norm_before_gate else normed,)


def part_norms(x: Values, sizes: tuple[int, int, int], eps: float, weights: tuple[Values, ...]) -> tuple[Values]:
    """The norms of dt, B and C in float64, side by side."""
    parts = np.split(x, [sizes[0], sizes[0] + sizes[1]], axis=-1)
    scaled = zip(parts, weights, strict=True)
    normed = [part / np.sqrt((part**2).mean(-1, keepdims=True) + eps) * weight for part, weight in scaled]
    return (np.concatenate(normed, axis=-1),)
