"""Decay of a unit over one training window, which decides whether it is global (paper, section 4; all in logs).

A Mamba-2 head has one decay rate, so its decay is exp(-|A| T); a Mamba-3 head has one at each token, and the decay
exp(-sum |A_t| Delta_t). A Mamba-1 channel has d_state rates, reduced
by `slowest` (what the channel can remember), `mean_prod` (mean over modes of the products over time) or
`step_mean` (product over time of the mean over modes: what the authors' theta of 1e-30 belongs to). In logs
always step_mean <= mean_prod <= slowest.
"""

from __future__ import annotations

import numpy as np

from longmamba_mlx.filtering.delta import Float, Float64

_BLOCK = 1 << 20


def log_step_mean(delta: Float64, rates: Float) -> Float64:
    """sum_t log mean_n exp(-Delta_t |A_n|).

    delta (units, ..., tokens), rates (units, modes) -> (units, ...). The slowest mode is factored out of the
    exponent: the rest lies between 1/modes and 1, where float32 is enough.
    """
    result = np.empty(delta.shape[:-1], np.float64)
    rows = max(1, _BLOCK // max(1, delta[0].size))
    for start in range(0, len(delta), rows):
        part, rate = delta[start : start + rows], np.asarray(rates[start : start + rows], np.float64)
        slowest = rate.min(axis=1)
        spread = np.asarray(rate - slowest[:, None], np.float32)
        shape = (len(part),) + (1,) * (part.ndim - 1)
        mean = np.zeros(part.shape, np.float32)
        small = part.astype(np.float32)
        for mode in range(spread.shape[1]):
            mean += np.exp(-small * spread[:, mode].reshape(shape))
        logs = np.log(mean / np.float32(spread.shape[1]))
        result[start : start + rows] = logs.sum(-1, dtype=np.float64) - part.sum(-1) * slowest.reshape(shape[:-1])
    return result


def log_mean_exp(values: Float64, axis: int) -> Float64:
    """log of the mean of exp along an axis, without underflow."""
    top = values.max(axis=axis, keepdims=True)
    return np.asarray(np.log(np.mean(np.exp(values - top), axis=axis)) + np.squeeze(top, axis=axis))


def log_decay(budgets: Float, rates: Float, step_mean: Float | None, reduction: str, combine: str) -> Float64:
    """The decay over one training window as one logarithm per unit, (units,).

    budgets (windows, units): sum of Delta in each window; rates (units, modes) |A|; step_mean (windows,
    units) from `log_step_mean`, None where there is one mode; where A depends on the token (Mamba-3) there is one mode
    too, and step_mean is the decay itself, -sum |A_t| Delta_t. avg is the log of the mean of the windows'
    decays (the release's "mean of exps"), max the largest, pooled that of the mean window.
    """
    total, rate = np.asarray(budgets, np.float64), np.asarray(rates, np.float64)
    steps = None if step_mean is None else np.asarray(step_mean, np.float64)
    if combine == "pooled":
        total = total.mean(axis=0, keepdims=True)
        steps = None if steps is None else steps.mean(axis=0, keepdims=True)
    if steps is not None and (reduction == "step_mean" or rate.shape[1] == 1):
        logs = steps
    elif reduction == "mean_prod":
        logs = log_mean_exp(-total[:, :, None] * rate[None], axis=2)
    else:
        logs = -total * rate.min(axis=1)
    return np.asarray(logs.max(axis=0)) if combine == "max" else log_mean_exp(logs, axis=0)
