"""Scans compiled by numba, an optional package; the meanings are those of `arrays`.

NumPy passes over every state six times a token; here a Mamba-1 scan keeps it in the first-level cache, and a token of
Mamba-2 reads and writes it once. Import this module only where numba is installed. Compiled code is kept on disk
by numba, so only the first run ever waits for it.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from longmamba_mlx.ops import arrays
from longmamba_mlx.ops.arrays import Array

_WIDTH = 128  # channels worked on at once: their states fit the first-level cache
_LOWEST = np.float32(-126.0)  # exponent of the smallest normal float32
_HALF, _ONE = np.float32(0.5), np.float32(1.0)
# 2^r for -1/2 <= r <= 1/2 by Horner's rule: (r ln 2)^k / k!, the last two fitted; relative error 2e-7.
_P6, _P5, _P4 = np.float32(1.5403530e-4), np.float32(1.3333558e-3), np.float32(9.6181291e-3)
_P3, _P2, _P1 = np.float32(5.5504109e-2), np.float32(2.4022651e-1), np.float32(6.9314718e-1)
_LOG2_E = np.float32(math.log2(math.e))
_ZERO, _BIAS, _SHIFT = np.float32(0.0), np.int32(127), np.int32(23)


def selective_scan(
    u: Array, step: Array, rate: Array, b_in: Array, c_out: Array, state: Array, *, reverse: bool = False
) -> Array:
    """As `arrays.selective_scan`."""
    y = np.empty(u.shape, dtype=np.float32)
    exponents = rate * _LOG2_E
    for i in range(len(u)):
        now = (i, slice(None, None, -1 if reverse else 1))
        rows = tuple(np.ascontiguousarray(array[now]) for array in (step, u, b_in, c_out))
        scan_one(*rows, y[now], exponents, state[i])
    return y


def _scan_one(step: Array, u: Array, b_in: Array, c_out: Array, y: Array, exponents: Array, state: Array) -> None:
    """One sequence: step, u, y (l, d); b_in, c_out (l, n); exponents (rate / ln 2), state (n, d). Writes y, state."""
    length, width = u.shape
    written = np.empty(_WIDTH, np.float32)
    for start in range(0, width, _WIDTH):
        end = min(start + _WIDTH, width)
        for t in range(length):
            steps, inputs, outputs = step[t, start:end], u[t, start:end], y[t, start:end]
            for j in range(steps.size):
                written[j] = steps[j] * inputs[j]
                outputs[j] = _ZERO
            for n in range(len(exponents)):
                b, c, rates, states = b_in[t, n], c_out[t, n], exponents[n, start:end], state[n, start:end]
                for j in range(steps.size):
                    # exp(step rate) = 2^whole 2^r. A loop that calls nothing is one that LLVM turns into vector code.
                    x = steps[j] * rates[j]
                    x = x if x > _LOWEST else _LOWEST
                    whole = np.int32(x - _HALF)
                    r = x - np.float32(whole)
                    p = _P6 * r + _P5
                    p = p * r + _P4
                    p = p * r + _P3
                    p = p * r + _P2
                    p = p * r + _P1
                    p = p * r + _ONE
                    power = np.int32((whole + _BIAS) << _SHIFT).view(np.float32)
                    now = p * power * states[j] + written[j] * b
                    states[j] = now
                    outputs[j] += now * c


# "contract" allows fused multiply-adds and nothing else: sums keep their order, NaN stays NaN.
scan_one: Any = numba.njit(fastmath={"contract"}, nogil=True, cache=True)(_scan_one)


def ssd_scan(
    u: Array, step: Array, rate: Array, b_in: Array, c_out: Array, state: Array, *, reverse: bool = False
) -> Array:
    """As `arrays.ssd_scan`, whose blocks are matrix products: only a single token gains from being compiled."""
    if u.shape[1] > 1:
        return arrays.ssd_scan(u, step, rate, b_in, c_out, state, reverse=reverse)
    y = np.empty(u.shape, dtype=np.float32)
    decay, written = np.exp(step * rate), u * step[..., None]
    for i in range(len(u)):
        token_one(decay[i, 0], written[i, 0], b_in[i, 0], c_out[i, 0], y[i, 0], state[i])
    return y


def _token_one(decay: Array, written: Array, b_in: Array, c_out: Array, y: Array, state: Array) -> None:
    """One token: decay (h,); written = u step, y (h, p); b_in, c_out (g, n); state (h, p, n). Writes y and state."""
    heads, width, size = state.shape
    in_group = heads // len(b_in)
    for h in range(heads):
        b, c, kept = b_in[h // in_group], c_out[h // in_group], decay[h]
        for p in range(width):
            row, value, total = state[h, p], written[h, p], _ZERO
            for n in range(size):
                now = kept * row[n] + value * b[n]
                row[n] = now
                total += now * c[n]
            y[h, p] = total


# "reassoc" as well: a sum over n in vector code.
token_one: Any = numba.njit(fastmath={"contract", "reassoc"}, nogil=True, cache=True)(_token_one)
