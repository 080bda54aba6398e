"""Loops compiled by numba, an optional package, for `numba_ops`: float32 rows in C order, results into given arrays.

NumPy passes over memory once for each operation; here a row stays in the first-level cache. A loop becomes vector code
where it calls nothing (so exp is spelled out, and put in line) and where a division cannot raise an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np

from longmamba_mlx.ops.cpu.numpy_ops import Array, Counts
from longmamba_mlx.ops.inputs import DtRange

Function = TypeVar("Function", bound=Callable[..., Any])


def loop(function: Function) -> Function:
    """Compile. "contract" allows fused multiply-adds and nothing else: sums keep their order, NaN stays NaN."""
    return _njit(function, fastmath={"contract"}, nogil=True, cache=True)


def sums(function: Function) -> Function:
    """Compile as `loop` does, but free to add in any order, so that a sum along a row becomes vector code."""
    return _njit(function, fastmath={"contract", "reassoc"}, nogil=True, cache=True)


def inline(function: Function) -> Function:
    """Put in line wherever it is called."""
    return _njit(function, inline="always")


def _njit(function: Function, **options: Any) -> Function:
    compiled: Function = numba.njit(error_model="numpy", **options)(function)
    return compiled


_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)
_LOG2_E = np.float32(math.log2(math.e))
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)  # ln 2; whole numbers times the first: exact
_LOWEST = np.float32(-126.0)  # exponent of the smallest normal float32
_LOWEST_EXP = np.float32(-87.33654)  # and its logarithm
_SHIFT = np.int32(23)  # bits of a float32 below its exponent
# 2^r for -1/2 <= r <= 1/2: 1 and the factors of r to r^5, fitted to a relative error of 9e-8; then a number that, added
# to x, leaves the nearest whole number of x and the exponent's bias in the lowest bits.
EXP2_COEFFICIENTS = tuple(
    np.float32(term)
    for term in (1.0, 6.93146978e-1, 2.40222424e-1, 5.55073373e-2, 9.67149277e-3, 1.32646590e-3, 1.5 * 2**23 + 127)
)
# atanh(q) / q = 1 + q^2 / 3 + q^4 / 5 + ... for q <= 1/3, the last two fitted; relative error 2e-9.
_Q5, _Q4 = np.float32(1.076373e-1), np.float32(1.1029422e-1)
_Q3, _Q2, _Q1 = np.float32(1 / 7), np.float32(1 / 5), np.float32(1 / 3)

_WIDTH = 256  # channels of a Mamba-1 scan worked on at once: their states fit the first-level cache


@inline
def exp2(x: Any, coefficients: Any) -> Any:
    """2^x for x <= 127; below -126 that of -126. `coefficients` are EXP2_COEFFICIENTS: as an argument of the
    loop they stay in registers; as globals they are loaded again for each element."""
    x = _LOWEST if x < _LOWEST else x
    whole = np.float32(x + coefficients[6])
    return _power(whole, x - (whole - coefficients[6]), coefficients)


@inline
def exp_below_0(x: Any) -> Any:
    """exp(x) for x <= 0; exactly 0 where the result would be subnormal."""
    whole = np.float32(x * _LOG2_E + EXP2_COEFFICIENTS[6])
    n = whole - EXP2_COEFFICIENTS[6]
    power = _power(whole, (x - n * _LN2_HIGH - n * _LN2_LOW) * _LOG2_E, EXP2_COEFFICIENTS)
    return _ZERO if x < _LOWEST_EXP else power


@inline
def _power(whole: Any, r: Any, coefficients: Any) -> Any:
    """2^(n + r), where `whole` is n + coefficients[6]."""
    p = coefficients[5] * r + coefficients[4]
    p = p * r + coefficients[3]
    p = p * r + coefficients[2]
    p = p * r + coefficients[1]
    p = p * r + coefficients[0]
    return p * np.int32(whole.view(np.int32) << _SHIFT).view(np.float32)


@inline
def silu(x: Any) -> Any:
    """x sigmoid(x), from exp(-|x|), which cannot overflow."""
    small = exp_below_0(-abs(x))
    return x * (_ONE if x >= _ZERO else small) / (_ONE + small)


@inline
def softplus(x: Any) -> Any:
    """log(1 + exp(x)) = max(x, 0) + 2 atanh(s / (2 + s)) with s = exp(-|x|)."""
    s = exp_below_0(-abs(x))
    q = s / (_TWO + s)
    w = q * q
    p = _Q5 * w + _Q4
    p = p * w + _Q3
    p = p * w + _Q2
    p = p * w + _Q1
    p = p * w + _ONE
    return (_ZERO if x < _ZERO else x) + _TWO * q * p


@sums
def rms_norm(x: Array, weight: Array, eps: float, out: Array) -> None:
    """x, out (l, c); weight (c,)."""
    width = x.shape[1]
    for t in range(len(x)):
        row, to, total = x[t], out[t], _ZERO
        for j in range(width):
            total += row[j] * row[j]
        scale = np.float32(1.0 / math.sqrt(total / width + eps))
        for j in range(width):
            to[j] = row[j] * scale * weight[j]


@sums
def gated_rms_norm(y: Array, z: Array, weight: Array, groups: int, eps: float, norm_before_gate: bool) -> None:
    """y (l, c), changed in place; z (l, c); weight (c,)."""
    width = y.shape[1] // groups
    for t in range(len(y)):
        if not norm_before_gate:
            _gate(y[t], z[t])
        for group in range(groups):
            start = group * width
            row, weights, total = y[t, start : start + width], weight[start : start + width], _ZERO
            for j in range(width):
                total += row[j] * row[j]
            scale = np.float32(1.0 / math.sqrt(total / width + eps))
            for j in range(width):
                row[j] = row[j] * scale * weights[j]
        if norm_before_gate:
            _gate(y[t], z[t])


@inline
def _gate(row: Array, z: Array) -> None:
    for j in range(row.size):
        row[j] *= silu(z[j])


@loop
def gate(y: Array, z: Array) -> None:
    """y *= silu(z): y, z (l, c)."""
    for t in range(len(y)):
        _gate(y[t], z[t])


@loop
def convolve(padded: Array, taps: Array, bias: Array, out: Array) -> None:
    """silu of the causal convolution: padded (k - 1 + l, c); taps (k, c); bias (c,); out (l, c)."""
    for t in range(len(out)):
        row, first, tap = out[t], padded[t], taps[0]
        for j in range(row.size):
            row[j] = bias[j] + tap[j] * first[j]
        for k in range(1, len(taps)):
            later, tap = padded[t + k], taps[k]
            for j in range(row.size):
                row[j] += tap[j] * later[j]
        for j in range(row.size):
            row[j] = silu(row[j])


@loop
def filtered_dt(raw: Array, threshold: Array, dt_range: DtRange, out: Array, kept: Counts) -> None:
    """softplus clipped to dt_range, 0 where raw is not above threshold: raw, out (l, u); threshold (u,); kept (l,)."""
    low, high = np.float32(dt_range[0]), np.float32(dt_range[1])
    for t in range(len(raw)):
        row, to, count = raw[t], out[t], np.int32(0)
        for j in range(row.size):
            dt = softplus(row[j])
            dt = low if dt < low else dt
            dt = high if dt > high else dt
            above = row[j] > threshold[j]
            to[j] = dt * (_ONE if above else _ZERO)
            count += np.int32(above)
        kept[t] = count


@sums
def product(weight: Array, x: Array, out: Array) -> None:
    """weight (o, i) times x (i,). Eight rows at once, an eighth of the matrix apart: from so many places a core reads
    memory 1.4 times as fast as from four rows in a row (19 instead of 13.6 GB/s on an AMD EPYC)."""
    part, width = len(weight) // 8, len(x)
    for i in range(part):
        a, b, c, d = weight[i], weight[i + part], weight[i + 2 * part], weight[i + 3 * part]
        e, f, g, h = weight[i + 4 * part], weight[i + 5 * part], weight[i + 6 * part], weight[i + 7 * part]
        of_a = of_b = of_c = of_d = of_e = of_f = of_g = of_h = _ZERO
        for j in range(width):
            value = x[j]
            of_a += a[j] * value
            of_b += b[j] * value
            of_c += c[j] * value
            of_d += d[j] * value
            of_e += e[j] * value
            of_f += f[j] * value
            of_g += g[j] * value
            of_h += h[j] * value
        out[i], out[i + part], out[i + 2 * part], out[i + 3 * part] = of_a, of_b, of_c, of_d
        out[i + 4 * part], out[i + 5 * part], out[i + 6 * part], out[i + 7 * part] = of_e, of_f, of_g, of_h
    for i in range(8 * part, len(weight)):
        row, total = weight[i], _ZERO
        for j in range(width):
            total += row[j] * x[j]
        out[i] = total


@loop
def selective_scan(
    dt: Array, x: Array, B: Array, C: Array, D: Array, y: Array, A_log2e: Array, state: Array, coefficients: Any
) -> None:
    """One sequence: dt, x, y (l, d); B, C (l, n); D (d,); A_log2e = A log2(e), state (n, d); coefficients are
    EXP2_COEFFICIENTS. Writes y and state."""
    length, width = x.shape
    written = np.empty(_WIDTH, np.float32)
    for start in range(0, width, _WIDTH):
        end = min(start + _WIDTH, width)
        D_part = D[start:end]
        for t in range(length):
            dt_part, x_part, y_part = dt[t, start:end], x[t, start:end], y[t, start:end]
            for j in range(dt_part.size):
                written[j] = dt_part[j] * x_part[j]
                y_part[j] = D_part[j] * x_part[j]
            for n in range(len(A_log2e)):
                b, c, A_part, states = B[t, n], C[t, n], A_log2e[n, start:end], state[n, start:end]
                for j in range(dt_part.size):
                    now = exp2(dt_part[j] * A_part[j], coefficients) * states[j] + written[j] * b
                    states[j] = now
                    y_part[j] += now * c


@sums
def ssd_token(dt: Array, decay: Array, x: Array, B: Array, C: Array, D: Array, y: Array, state: Array) -> None:
    """One token: dt, decay, D (h,); x, y (h, p); B, C (g, n); state (h, p, n). Writes y and state."""
    heads, width, size = state.shape
    in_group = heads // len(B)
    for h in range(heads):
        b, c, kept = B[h // in_group], C[h // in_group], decay[h]
        for p in range(width):
            row, written, total = state[h, p], dt[h] * x[h, p], _ZERO
            for n in range(size):
                now = kept * row[n] + written * b[n]
                row[n] = now
                total += now * c[n]
            y[h, p] = total + D[h] * x[h, p]


@loop
def ssd_scan(dt: Array, decay: Array, x: Array, B: Array, C: Array, D: Array, y: Array, state: Array) -> None:
    """One sequence: dt, decay (l, h); x, y (l, h, p); B, C (l, g, n); D (h,); state (h, p, n). Writes y and
    state."""
    fours = len(dt) - len(dt) % 4
    _ssd_fours(dt[:fours], decay, x, B, C, D, y, state)
    for t in range(fours, len(dt)):
        ssd_token(dt[t], decay[t], x[t], B[t], C[t], D, y[t], state)


@sums
def _ssd_fours(dt: Array, decay: Array, x: Array, B: Array, C: Array, D: Array, y: Array, state: Array) -> None:
    """As `ssd_scan` for the tokens of `dt`, four at a time: a state is then read and written once for four of them
    (the SSD form with blocks of four). A product of decays is exact where they are 1: filtered tokens change no bit."""
    heads, width, size = state.shape
    groups = B.shape[1]
    for t in range(0, len(dt), 4):
        for g in range(groups):
            b0, b1, b2, b3 = B[t, g], B[t + 1, g], B[t + 2, g], B[t + 3, g]
            c0, c1, c2, c3 = C[t, g], C[t + 1, g], C[t + 2, g], C[t + 3, g]
            s00, s10, s11, s20, s21, s22, s30, s31, s32, s33 = _seen(b0, b1, b2, b3, c0, c1, c2, c3)
            for h in range(g * heads // groups, (g + 1) * heads // groups):
                d0, d1, d2, d3 = decay[t, h], decay[t + 1, h], decay[t + 2, h], decay[t + 3, h]
                d01, d12, d23 = d0 * d1, d1 * d2, d2 * d3
                d012, d123 = d01 * d2, d12 * d3
                d0123 = d012 * d3
                for p in range(width):
                    row = state[h, p]
                    x0, x1, x2, x3 = x[t, h, p], x[t + 1, h, p], x[t + 2, h, p], x[t + 3, h, p]
                    w0, w1, w2, w3 = dt[t, h] * x0, dt[t + 1, h] * x1, dt[t + 2, h] * x2, dt[t + 3, h] * x3
                    end0, end1, end2 = d123 * w0, d23 * w1, d3 * w2
                    y0 = y1 = y2 = y3 = _ZERO
                    for n in range(size):
                        h_n = row[n]
                        y0 += h_n * c0[n]
                        y1 += h_n * c1[n]
                        y2 += h_n * c2[n]
                        y3 += h_n * c3[n]
                        row[n] = d0123 * h_n + end0 * b0[n] + end1 * b1[n] + end2 * b2[n] + w3 * b3[n]
                    y[t, h, p] = d0 * y0 + s00 * w0 + D[h] * x0
                    y[t + 1, h, p] = d01 * y1 + d1 * s10 * w0 + s11 * w1 + D[h] * x1
                    y[t + 2, h, p] = d012 * y2 + d12 * s20 * w0 + d2 * s21 * w1 + s22 * w2 + D[h] * x2
                    y[t + 3, h, p] = (
                        d0123 * y3 + d123 * s30 * w0 + d23 * s31 * w1 + d3 * s32 * w2 + s33 * w3 + D[h] * x3
                    )


@inline
def _seen(b0: Array, b1: Array, b2: Array, b3: Array, c0: Array, c1: Array, c2: Array, c3: Array) -> Any:
    """Causal C·Bᵀ scores of a block of four tokens."""
    s00 = s10 = s11 = s20 = s21 = s22 = s30 = s31 = s32 = s33 = _ZERO
    for n in range(b0.size):
        s00 += c0[n] * b0[n]
        s10 += c1[n] * b0[n]
        s11 += c1[n] * b1[n]
        s20 += c2[n] * b0[n]
        s21 += c2[n] * b1[n]
        s22 += c2[n] * b2[n]
        s30 += c3[n] * b0[n]
        s31 += c3[n] * b1[n]
        s32 += c3[n] * b2[n]
        s33 += c3[n] * b3[n]
    return s00, s10, s11, s20, s21, s22, s30, s31, s32, s33
