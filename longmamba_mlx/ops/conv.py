"""The short causal depthwise convolution in front of both scans, with a carried window."""

from __future__ import annotations

import mlx.core as mx

from longmamba_mlx.ops.activations import silu


def causal_conv1d(
    x: mx.array, weight: mx.array, bias: mx.array | None = None, initial: mx.array | None = None
) -> tuple[mx.array, mx.array]:
    """silu(conv(x)) over the last k tokens, and the window the next call starts from; see `depthwise_conv1d`."""
    y, window = depthwise_conv1d(x, weight, bias, initial)
    return silu(y).astype(x.dtype), window


def depthwise_conv1d(
    x: mx.array, weight: mx.array, bias: mx.array | None = None, initial: mx.array | None = None
) -> tuple[mx.array, mx.array]:
    """conv(x) over the last k tokens, and the window the next call starts from.

    x (b, l, c); weight (c, k), oldest token first; bias (c,); initial (b, k-1, c) raw inputs before x, zeros
    if None. Returns (y (b, l, c) float32, window (b, k-1, c) in x's dtype).
    """
    batch, length, channels = x.shape
    taps = weight.shape[1]
    if initial is None:
        initial = mx.zeros((batch, taps - 1, channels), dtype=x.dtype)
    padded = mx.concatenate([initial.astype(x.dtype), x], axis=1)
    # k shifted multiply-adds: several times faster than a depthwise mx.conv1d on a CPU.
    weight = weight.astype(mx.float32)
    y = padded[:, :length] * weight[:, 0]
    for tap in range(1, taps):
        y = y + padded[:, tap : tap + length] * weight[:, tap]
    if bias is not None:
        y = y + bias.astype(mx.float32)
    # A gather, not a slice: a slice would keep the whole chunk's inputs alive inside the state.
    window = mx.take(padded, mx.arange(length, length + taps - 1), axis=1)
    return y, window
