"""What a model carries from token to token.

Scan states are constant in size, whatever was read; the keys and values of attention layers grow with the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import mlx.core as mx

from longmamba_mlx.errors import StateError

_STEP = 256  # tokens by which room for keys and values grows
_SCAN, _ATTENTION = {"conv", "ssm"}, {"keys", "values"}


@dataclass(frozen=True, slots=True)
class KeyValues:
    """Keys and values of one attention layer, (b, n_kv_heads, capacity, head_dim) each; only [:tokens] counts."""

    keys: mx.array
    values: mx.array
    tokens: int = 0

    @classmethod
    def empty(cls, batch: int, heads: int, width: int, dtype: mx.Dtype) -> KeyValues:
        """No token yet."""
        nothing = mx.zeros((batch, heads, 0, width), dtype=dtype)
        return cls(nothing, nothing)

    def append(self, keys: mx.array, values: mx.array) -> KeyValues:
        """These and then keys, values (b, n_kv_heads, l, head_dim). This one stays as it is."""
        tokens = self.tokens + keys.shape[2]
        return KeyValues(
            _written(self.keys, keys, self.tokens, tokens), _written(self.values, values, self.tokens, tokens), tokens
        )

    def used(self) -> tuple[mx.array, mx.array]:
        """Keys and values of the tokens that were read, without the spare room."""
        if self.keys.shape[2] == self.tokens:
            return self.keys, self.values
        return self.keys[:, :, : self.tokens], self.values[:, :, : self.tokens]


def _written(old: mx.array, new: mx.array, start: int, end: int) -> mx.array:
    """`old` with `new` at tokens start:end, in more room where it needs some. A new array: MLX writes in place only
    where nobody else holds the old one."""
    room = -(-end // _STEP) * _STEP
    new = new.astype(old.dtype)
    if room > old.shape[2]:
        spare = mx.zeros((*old.shape[:2], room - end, old.shape[3]), dtype=old.dtype)
        return mx.concatenate([old[:, :, :start], new, spare], axis=2)
    return mx.slice_update(old, new, mx.array(start), axes=(2,))


def there(array: mx.array | None) -> mx.array:
    """A part of a state that a scan needs. Raises StateError for a state of another kind of layer."""
    if array is None:
        raise StateError("this state is not one of a layer with a scan")
    return array


@dataclass(frozen=True, slots=True)
class LayerState:
    """One layer's state; a layer holds what it needs.

    `conv` (b, d_conv - 1, conv_dim) holds the last raw inputs of the convolution; `ssm` is the scan's state
    in float32: (b, d_inner, d_state) for Mamba-1, (b, n_heads, headdim, d_state) for Mamba-2; `attention` is
    what an attention layer remembers.
    """

    conv: mx.array | None = None
    ssm: mx.array | None = None
    attention: KeyValues | None = None

    def arrays(self) -> dict[str, mx.array]:
        """What is there, by name: "conv", "ssm", "keys", "values" (the latter two without spare room)."""
        named = {}
        if self.conv is not None:
            named["conv"] = self.conv
        if self.ssm is not None:
            named["ssm"] = self.ssm
        if self.attention is not None:
            named["keys"], named["values"] = self.attention.used()
        return named

    def evaluate(self) -> None:
        """Compute all arrays now."""
        kept = self.attention
        mx.eval(self.conv, self.ssm, None if kept is None else (kept.keys, kept.values))


@dataclass(frozen=True, slots=True)
class ModelState:
    """The states of all layers after `tokens` tokens. Arrays are immutable, so sharing one is a copy."""

    layers: tuple[LayerState, ...]
    tokens: int

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays().values())

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
        for name, array in self.arrays().items():
            shape = tuple(array.shape)
            keeps_tokens = name.rpartition(".")[2] in _ATTENTION
            grown[name] = (*shape[:2], tokens, *shape[3:]) if keeps_tokens else shape
        return grown

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, mx.array], tokens: int, n_layer: int | None = None) -> ModelState:
        """The inverse of `arrays`. `n_layer` is needed where layers hold nothing (an MLP on its own).

        Raises StateError for missing or unknown names, and keys or values of another number of tokens.
        """
        parts = _by_layer(arrays, n_layer)
        return cls(layers=tuple(_layer(part, tokens) for part in parts), tokens=tokens)

    def is_finite(self) -> bool:
        """False when any number is NaN or infinite."""
        checks = [mx.isfinite(array).all() for array in self.arrays().values()]
        return bool(mx.stack(checks).all().item())

    def evaluate(self) -> None:
        """Compute all arrays now."""
        for layer in self.layers:
            layer.evaluate()


def _by_layer(arrays: Mapping[str, mx.array], n_layer: int | None) -> list[dict[str, mx.array]]:
    """The arrays of each layer by the last part of their names."""
    count = _layers(arrays) if n_layer is None else n_layer
    parts: list[dict[str, mx.array]] = [{} for _ in range(count)]
    for index in range(count):
        for part in (*_SCAN, *_ATTENTION):
            array = arrays.get(f"layers.{index}.{part}")
            if array is not None:
                parts[index][part] = array
    complete = all(set(part) in (set(), _SCAN, _ATTENTION, _SCAN | _ATTENTION) for part in parts)
    gapless = n_layer is not None or all(parts)
    if not arrays or sum(map(len, parts)) != len(arrays) or not complete or not gapless:
        raise StateError("the stored state does not hold the layers of a model")
    return parts


def _layers(names: Iterable[str]) -> int:
    """How many layers the names speak of; at most as many as there are names."""
    indices = {name.split(".")[1] for name in names if name.count(".") == 2}
    return len(indices)


def _layer(parts: Mapping[str, mx.array], tokens: int) -> LayerState:
    kept = None
    if "keys" in parts:
        keys, values = parts["keys"], parts["values"]
        if keys.ndim != 4 or values.ndim != 4 or keys.shape[2] != tokens or values.shape[2] != tokens:
            raise StateError(f"the stored keys and values are not those of {tokens} tokens")
        kept = KeyValues(keys, values, tokens)
    return LayerState(conv=parts.get("conv"), ssm=parts.get("ssm"), attention=kept)
