"""The state that a model carries from token to token.

Scan states are constant in size, whatever was read; the keys and values of attention layers grow with the text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import mlx.core as mx

from longmamba_mlx.errors import StateError
from longmamba_mlx.models.config.hybrid import FIRST

_STEP = 256  # tokens by which room for keys and values grows
_SCAN, _TURNING, _ATTENTION = {"conv", "ssm"}, {"ssm", "angle", "last_k", "last_v"}, {"keys", "values"}
_PARTS = sorted(_SCAN | _TURNING | _ATTENTION)


def held_after(tokens: int, window: int | None, first: int = FIRST) -> int:
    """How many of `tokens` tokens have their keys and values in the KV cache."""
    return tokens if window is None else min(tokens, first + window)


@dataclass(frozen=True, slots=True)
class KeyValues:
    """Keys and values of one attention layer after `tokens` tokens, (b, n_kv_heads, capacity, head_dim) each; only
    [:held] counts. With a `window` these are the `first` tokens and the last `window` ones, else all."""

    keys: mx.array
    values: mx.array
    tokens: int = 0
    window: int | None = None
    first: int = FIRST

    @classmethod
    def empty(
        cls, batch: int, heads: int, width: int, dtype: mx.Dtype, window: int | None = None, first: int = FIRST
    ) -> KeyValues:
        """No token yet."""
        nothing = mx.zeros((batch, heads, 0, width), dtype=dtype)
        return cls(nothing, nothing, 0, window, first)

    @property
    def held(self) -> int:
        """How many tokens are remembered."""
        return held_after(self.tokens, self.window, self.first)

    @property
    def nbytes_per_token(self) -> int:
        """Bytes by which keys and values grow with every token; 0 where a window bounds them."""
        return self._nbytes_each if self.window is None else 0

    def nbytes_after(self, tokens: int) -> int:
        """Bytes of the keys and values that are remembered after `tokens` tokens."""
        return self._nbytes_each * held_after(tokens, self.window, self.first)

    @property
    def _nbytes_each(self) -> int:
        """Bytes of one token's keys and values."""
        batch, heads, _, width = self.keys.shape
        return batch * heads * width * (self.keys.dtype.size + self.values.dtype.size)

    def append(self, keys: mx.array, values: mx.array) -> KeyValues:
        """Return a new cache with keys, values (b, n_kv_heads, l, head_dim) appended, without those that leave the
        window."""
        tokens, end = self.tokens + keys.shape[2], self.held + keys.shape[2]
        keys, values = _written(self.keys, keys, self.held, end), _written(self.values, values, self.held, end)
        held = held_after(tokens, self.window, self.first)
        if held < end:
            keys, values = (_forgotten(rows, end, held, self.first) for rows in (keys, values))
        return KeyValues(keys, values, tokens, self.window, self.first)

    def read(self, keys: mx.array, values: mx.array) -> tuple[KeyValues, tuple[mx.array, mx.array, mx.array | None]]:
        """What is remembered after keys, values, and what their tokens see: all keys and values, and which of them
        each token sees, (l, held + l) bool, None: all up to itself."""
        after, length = self.append(keys, values), keys.shape[2]
        if length == 1 or after.held == self.held + length:  # the last one sees just what is remembered after it
            return after, (*after.used(), None)
        return after, self.seen_by(keys, values)

    def seen_by(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """What the tokens of keys, values see of these and of themselves, each within its own window: all keys and
        values, (b, n_kv_heads, held + l, head_dim) each, and which of them each token sees, (l, held + l) bool."""
        pairs = zip(self.used(), (keys, values), strict=True)
        all_keys, all_values = (mx.concatenate([old, new.astype(old.dtype)], axis=2) for old, new in pairs)
        own = mx.arange(self.tokens, self.tokens + keys.shape[2])[:, None]
        places = mx.arange(all_keys.shape[2])
        first = places < self.first
        places = mx.where(first, places, places + (self.tokens - self.held))
        within = first if self.window is None else first | (places > own - self.window)
        return all_keys, all_values, (places <= own) & within

    def used(self) -> tuple[mx.array, mx.array]:
        """Keys and values of the tokens that are remembered, without the spare room."""
        if self.keys.shape[2] == self.held:
            return self.keys, self.values
        return self.keys[:, :, : self.held], self.values[:, :, : self.held]


def _written(old: mx.array, new: mx.array, start: int, end: int) -> mx.array:
    """`old` with `new` at tokens start:end, in more room where it needs some. A new array: MLX writes in place only
    where nothing else refers to the old one."""
    room = -(-end // _STEP) * _STEP
    new = new.astype(old.dtype)
    if room > old.shape[2]:
        spare = mx.zeros((*old.shape[:2], room - end, old.shape[3]), dtype=old.dtype)
        return mx.concatenate([old[:, :, :start], new, spare], axis=2)
    return mx.slice_update(old, new, mx.array(start), axes=(2,))


def _forgotten(rows: mx.array, end: int, held: int, first: int) -> mx.array:
    """Of rows [:end] the first and the last ones, `held` together."""
    last = rows[:, :, end - held + first : end]
    return mx.concatenate([rows[:, :, :first], last], axis=2) if first else mx.contiguous(last)


def require(array: mx.array | None) -> mx.array:
    """Return a part of the state that a scan needs. Raises StateError for the state of another kind of layer."""
    if array is None:
        raise StateError("This state does not belong to a layer with a scan.")
    return array


@dataclass(frozen=True, slots=True)
class LayerState:
    """One layer's state; a layer holds what it needs.

    `conv` (b, d_conv - 1, conv_dim) holds the last raw inputs of the convolution; `ssm` is the scan's state
    in float32: (b, d_inner, d_state) for Mamba-1, (b, n_heads, headdim, d_state) for Mamba-2 and Mamba-3; `attention`
    is the KV cache of an attention layer. Mamba-3 has no convolution, but an `angle` (b, n_heads, angles) in 2^-32
    turns and the rotated key `last_k` (b, n_heads, rank, d_state) and value `last_v` (b, n_heads, headdim) of the last
    kept token.
    """

    conv: mx.array | None = None
    ssm: mx.array | None = None
    attention: KeyValues | None = None
    angle: mx.array | None = None
    last_k: mx.array | None = None
    last_v: mx.array | None = None

    def arrays(self) -> dict[str, mx.array]:
        """The arrays of the state by field name, and attention's "keys" and "values" without spare room."""
        named = self._own()
        if self.attention is not None:
            named["keys"], named["values"] = self.attention.used()
        return named

    def buffers(self) -> list[mx.array]:
        """All arrays of the state, spare room included."""
        pair = [] if self.attention is None else [self.attention.keys, self.attention.values]
        return [*self._own().values(), *pair]

    def _own(self) -> dict[str, mx.array]:
        parts = {
            "conv": self.conv, "ssm": self.ssm, "angle": self.angle, "last_k": self.last_k, "last_v": self.last_v,
        }  # fmt: skip
        return {name: array for name, array in parts.items() if array is not None}


@dataclass(frozen=True, slots=True)
class ModelState:
    """The states of all layers after `tokens` tokens. Arrays are immutable, so sharing one is a copy."""

    layers: tuple[LayerState, ...]
    tokens: int

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays().values())

    def nbytes_after(self, tokens: int) -> int:
        """Bytes of all arrays after `tokens` tokens."""
        shapes = self.shapes(tokens)
        return sum(array.dtype.size * math.prod(shapes[name]) for name, array in self.arrays().items())

    @property
    def nbytes_per_token(self) -> int:
        """Bytes by which attention's keys and values grow with every token; 0 without attention, or in windows."""
        return sum(kept.nbytes_per_token for kept in self._attention.values())

    def keys_and_values(self, tokens: int) -> list[int]:
        """Bytes of each attention layer's keys and values after `tokens` tokens."""
        return [kept.nbytes_after(tokens) for kept in self._attention.values()]

    @property
    def attends(self) -> bool:
        """Whether any layer remembers keys and values."""
        return bool(self._attention)

    @property
    def window(self) -> int | None:
        """The window put on attention: the latest tokens it remembers beside the FIRST ones; None: all, or there is no
        attention without a window of its own."""
        return next((kept.window for kept in self._attention.values() if kept.first), None)

    @property
    def own_windows(self) -> dict[int, int]:
        """The layers whose attention was trained with a window, and of how many tokens."""
        kept = self._attention
        return {index: part.window for index, part in kept.items() if part.window is not None and not part.first}

    @property
    def _attention(self) -> dict[int, KeyValues]:
        """What each layer with attention remembers."""
        return {index: layer.attention for index, layer in enumerate(self.layers) if layer.attention is not None}

    def arrays(self) -> dict[str, mx.array]:
        """Flat names -> arrays: "layers.0.conv", "layers.0.ssm", "layers.1.keys", "layers.1.values", ..."""
        return {
            f"layers.{index}.{part}": array
            for index, layer in enumerate(self.layers)
            for part, array in layer.arrays().items()
        }

    def shapes(self, tokens: int) -> dict[str, tuple[int, ...]]:
        """The shapes that `arrays` would have after `tokens` tokens."""
        grown = {}
        for index, layer in enumerate(self.layers):
            for part, array in layer.arrays().items():
                shape, kept = tuple(array.shape), layer.attention
                if kept is not None and part in _ATTENTION:
                    shape = (*shape[:2], held_after(tokens, kept.window, kept.first), *shape[3:])
                grown[f"layers.{index}.{part}"] = shape
        return grown

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, mx.array],
        tokens: int,
        n_layer: int | None = None,
        window: int | None = None,
        own_windows: Mapping[int, int] | None = None,
    ) -> ModelState:
        """The inverse of `arrays`. `n_layer` is needed where layers hold nothing (an MLP on its own), `window` and
        `own_windows` where attention has one.

        Raises StateError for missing or unknown names, and keys or values of another number of tokens.
        """
        own = own_windows or {}
        layers = (
            _layer(part, tokens, own.get(index, window), 0 if index in own else FIRST)
            for index, part in enumerate(_by_layer(arrays, n_layer))
        )
        return cls(layers=tuple(layers), tokens=tokens)

    def is_finite(self) -> bool:
        """False when any number is NaN or infinite."""
        checks = [mx.isfinite(array).all() for array in self.arrays().values()]
        return bool(mx.stack(checks).all().item())

    def buffers(self) -> list[mx.array]:
        """All that the layers hold, the spare room included."""
        return [array for layer in self.layers for array in layer.buffers()]

    def evaluate(self, *others: mx.array) -> None:
        """Compute all arrays now, and `others` with them: in one go, since every wait for a GPU costs."""
        mx.eval(*self.buffers(), *others)

    def begin(self, *others: mx.array) -> None:
        """Dispatch all arrays, and `others`, to the GPU without waiting."""
        mx.async_eval(*self.buffers(), *others)  # type: ignore[no-untyped-call]


def _by_layer(arrays: Mapping[str, mx.array], n_layer: int | None) -> list[dict[str, mx.array]]:
    """The arrays of each layer by the last part of their names."""
    count = _layers(arrays) if n_layer is None else n_layer
    parts: list[dict[str, mx.array]] = [{} for _ in range(count)]
    for index in range(count):
        for part in _PARTS:
            array = arrays.get(f"layers.{index}.{part}")
            if array is not None:
                parts[index][part] = array
    whole: tuple[set[str], ...] = (set(), _SCAN, _TURNING, _ATTENTION, _SCAN | _ATTENTION, {"conv"} | _ATTENTION)
    complete = all(set(part) in whole for part in parts)
    gapless = n_layer is not None or all(parts)
    if not arrays or sum(map(len, parts)) != len(arrays) or not complete or not gapless:
        raise StateError("The stored state does not hold the layers of a model.")
    return parts


def _layers(names: Iterable[str]) -> int:
    """The number of different layers in the names."""
    indices = {name.split(".")[1] for name in names if name.count(".") == 2}
    return len(indices)


def _layer(parts: Mapping[str, mx.array], tokens: int, window: int | None, first: int) -> LayerState:
    kept = None
    if "keys" in parts:
        keys, values, held = parts["keys"], parts["values"], held_after(tokens, window, first)
        if keys.ndim != 4 or values.ndim != 4 or keys.shape[2] != held or values.shape[2] != held:
            raise StateError(f"The stored keys and values are not those of {held} tokens.")
        kept = KeyValues(keys, values, tokens, window, first)
    own = {name: array for name, array in parts.items() if name not in _ATTENTION}
    return LayerState(attention=kept, **own)
