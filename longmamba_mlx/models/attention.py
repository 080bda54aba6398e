"""Grouped-query attention with a carried state, with or without rotary positions."""

from __future__ import annotations

from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from longmamba_mlx.models.config.hybrid import AttentionConfig, RopeConfig
from longmamba_mlx.models.mixer import DepthwiseConv, Mixer
from longmamba_mlx.models.state import KeyValues, LayerState
from longmamba_mlx.ops.conv import depthwise_conv1d

_FUSED = (64, 80, 128)  # widths of heads for which MLX's GPU kernel never writes the scores out
SCORES = 1 << 26  # that MLX writes out at once: 256 MB in float32


class Attention(Mixer):
    """q, k, v -> rotary positions -> causal softmax attention over all that is remembered -> o_proj.

    `d_in` and `d_out` are the widths of its input and output; `key_scale` multiplies the keys (Falcon-H1).
    """

    entry: ClassVar[str] = "q_proj"
    exit: ClassVar[str] = "o_proj"

    def __init__(self, config: AttentionConfig, d_in: int, d_out: int, *, key_scale: float = 1.0) -> None:
        super().__init__()
        self.config = config
        self.key_scale = key_scale
        width, kv_width = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.q_proj = nn.Linear(d_in, width, bias=config.bias)
        self.k_proj = nn.Linear(d_in, kv_width, bias=config.bias)
        self.v_proj = nn.Linear(d_in, kv_width, bias=config.bias)
        self.o_proj = nn.Linear(width, d_out, bias=config.bias)
        self._periods = None if config.rope is None else periods(config.rope)

    def nothing(self, batch: int) -> KeyValues:
        """What was read before the first token."""
        config = self.config
        return KeyValues.empty(
            batch, config.n_kv_heads, config.head_dim, self.input_type(), config.window, config.first
        )

    def initial(self, batch: int) -> LayerState:
        return LayerState(attention=self.nothing(batch))

    def mix(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        y, after = self(hidden, self.nothing(hidden.shape[0]) if state.attention is None else state.attention)
        return y, LayerState(attention=after), None

    def __call__(self, x: mx.array, before: KeyValues) -> tuple[mx.array, KeyValues]:
        """x (b, l, d_in), and what was read before it -> (b, l, d_out), and what was read after it."""
        keys = self.k_proj(x)
        if self.key_scale != 1.0:
            keys = keys * self.key_scale
        return self.attend(self.q_proj(x), keys, self.v_proj(x), before)

    def attend(
        self, queries: mx.array, keys: mx.array, values: mx.array, before: KeyValues
    ) -> tuple[mx.array, KeyValues]:
        """The same from the projections, (b, l, heads * head_dim) each."""
        config = self.config
        queries = self._turned(self._heads(queries, config.n_heads), before.tokens)
        keys = self._turned(self._heads(keys, config.n_kv_heads), before.tokens)
        after, seen = before.read(keys, self._heads(values, config.n_kv_heads))
        return self.heard(queries, *seen), after

    def heard(self, queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | None) -> mx.array:
        """The output (b, l, d_out) for queries (b, heads, l, head_dim) of the last l tokens of keys and values."""
        joined = self.mixed(queries, keys, values, mask).swapaxes(1, 2)
        y: mx.array = self[self.exit](joined.reshape(*joined.shape[:2], -1))
        return y

    def mixed(self, queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | None) -> mx.array:
        """What each head makes of the values, (b, heads, l, head_dim)."""
        return causal_attention(queries, keys, values, self.config.scale, mask)

    def _heads(self, x: mx.array, count: int) -> mx.array:
        """(b, l, count * head_dim) -> (b, count, l, head_dim)."""
        return x.reshape(*x.shape[:2], count, self.config.head_dim).swapaxes(1, 2)

    def _turned(self, x: mx.array, offset: int) -> mx.array:
        """x (b, heads, l, head_dim) with the rotary positions offset, offset + 1, ..."""
        rope = self.config.rope
        if rope is None:
            return x
        # With the periods given and not the base: MLX's own from the base differ in the last bit, which over hundreds
        # of positions adds up to angles of 1e-4 beside the reference's.
        turned: mx.array = mx.fast.rope(
            x, rope.dims, traditional=False, base=None, scale=1.0, offset=offset, freqs=self._periods
        )
        return turned


class ConvAttention(Attention):
    """mamba_ssm's attention: one in_proj, whose output may pass through a short convolution (without activation)."""

    entry: ClassVar[str] = "in_proj"
    exit: ClassVar[str] = "out_proj"

    def __init__(self, config: AttentionConfig, d_model: int) -> None:
        Mixer.__init__(self)
        self.config = config
        width, kv_width = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self._ends = [width, width + kv_width]
        self.in_proj = nn.Linear(d_model, width + 2 * kv_width, bias=config.bias)
        if config.conv:
            self.conv1d = DepthwiseConv(width + 2 * kv_width, config.conv, bias=True)
        self.out_proj = nn.Linear(width, d_model, bias=config.bias)
        self._periods = None if config.rope is None else periods(config.rope)

    def initial(self, batch: int) -> LayerState:
        taps, channels = self.config.conv, self.in_proj.weight.shape[0]
        window = mx.zeros((batch, taps - 1, channels), dtype=self.input_type()) if taps else None
        return LayerState(conv=window, attention=self.nothing(batch))

    def mix(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        joined, window = self.in_proj(hidden), None
        if "conv1d" in self:
            weight, bias = self.conv1d.parts()
            mixed, window = depthwise_conv1d(joined, weight, bias, state.conv)
            joined = mixed.astype(joined.dtype)
        queries, keys, values = mx.split(joined, self._ends, axis=-1)
        before = self.nothing(hidden.shape[0]) if state.attention is None else state.attention
        y, after = self.attend(queries, keys, values, before)
        return y, LayerState(conv=window, attention=after), None


def causal_attention(
    queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: mx.array | None = None
) -> mx.array:
    """queries (b, heads, l, d) of the last l of s tokens; keys, values (b, kv_heads, s, d) -> (b, heads, l, d). mask
    (l, s) bool: what each query sees, where that is not all up to its own token.

    Where MLX writes the scores out (on a CPU, and for most head_dim), it gets as many queries at once as keep them
    within bounds: 512 queries of 32 heads on 100,000 tokens would take 6.5 GB.
    """
    batch, heads, length, width = queries.shape
    seen = keys.shape[2]
    most = max(1, SCORES // (batch * heads * seen))
    if most >= length or keeps_scores(width):
        return _attended(queries, keys, values, scale, mask)
    parts = []
    for start in range(0, length, most):
        end = min(start + most, length)
        past = seen - length + end  # later tokens are none of these queries' business
        rows = None if mask is None else mask[start:end, :past]
        parts.append(_attended(queries[:, :, start:end], keys[:, :, :past], values[:, :, :past], scale, rows))
    return mx.concatenate(parts, axis=2)


def keeps_scores(width: int) -> bool:
    """Whether MLX's kernel keeps the scores of heads of this width to itself, for values of the same width."""
    return mx.default_device().type == mx.gpu and width in _FUSED


def _attended(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: mx.array | None) -> mx.array:
    # "causal" is aligned with the last token that was read.
    seen = "causal" if mask is None and queries.shape[2] > 1 else mask
    mixed: mx.array = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=seen)
    return mixed


def periods(rope: RopeConfig) -> mx.array:
    """theta ** (2i / dims) for each pair of dimensions, (dims / 2,) float32, rounded where the models' code rounds: the
    exponent is float32."""
    exponents = np.arange(0, rope.dims, 2, dtype=np.float32) / np.float32(rope.dims)
    return mx.array(np.power(np.float64(rope.theta), exponents.astype(np.float64)).astype(np.float32))
