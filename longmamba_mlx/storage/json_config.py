"""Parse untrusted JSON strictly and within bounds, and read its keys with errors that name the key."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from longmamba_mlx.errors import ConfigError

_AGAIN = "check the file against its source, or download it again"


class Reader:
    """Checked access to one mapping; `prefix` comes before its keys in error messages."""

    def __init__(self, raw: Mapping[str, object], prefix: str = "") -> None:
        self.raw = raw
        self.prefix = prefix

    def fail(self, key: str, problem: str) -> ConfigError:
        return ConfigError(
            f"Config key '{self.prefix}{key}' {problem}.",
            hint="Check the model's config.json against its source.",
        )

    def has(self, key: str) -> bool:
        return self.raw.get(key) is not None

    def integer(self, key: str, maximum: int, *, minimum: int = 1, default: int | None = None) -> int:
        value = self.raw.get(key)
        if value is None:
            if default is None:
                raise self.fail(key, "is missing")
            value = default
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(key, f"must be a whole number, not {shown(value)}")
        if not minimum <= value <= maximum:
            raise self.fail(key, f"is {shown(value)}, outside {minimum} to {maximum}")
        return value

    def number(self, key: str, low: float, high: float, default: float) -> float:
        value = self.raw.get(key)
        return self.checked_float(key, default if value is None else value, low, high)

    def checked_float(self, key: str, value: object, low: float, high: float) -> float:
        if isinstance(value, Mapping):
            value = _tagged_float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(key, f"must be a number, not {shown(value)}")
        if not low <= value <= high:  # also false for NaN
            raise self.fail(key, f"is {shown(value)}, outside {low:g} to {high:g}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.raw.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.fail(key, f"must be true or false, not {shown(value)}")
        return value

    def limits(self, key: str) -> tuple[float, float]:
        """A range of dt (low, high): 0 <= low < high, where high may be infinite."""
        value = self.raw.get(key)
        if value is None:
            return (0.0, math.inf)
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise self.fail(key, f"must be two numbers, not {shown(value)}")
        low = self.checked_float(key, value[0], 0.0, 1e6)
        high = self.checked_float(key, value[1], 0.0, math.inf)
        if low >= high:
            raise self.fail(key, f"must rise: {low:g} is not below {high:g}")
        return (low, high)

    def token_ids(self, key: str, vocab_size: int) -> tuple[int, ...]:
        value = self.raw.get(key)
        if value is None:
            return ()
        items = value if isinstance(value, list | tuple) else [value]
        if len(items) > 64:
            raise self.fail(key, f"lists {len(items)} tokens, more than 64")
        for item in items:
            if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < vocab_size:
                raise self.fail(key, f"is {shown(item)}, not a token of this vocabulary")
        return tuple(items)

    def table(self, key: str) -> Reader:
        value = self.raw.get(key)
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise self.fail(key, f"must be an object, not {shown(value)}")
        return Reader(value, f"{self.prefix}{key}.")


def shown(value: object) -> str:
    text = repr(value) if isinstance(value, int | float | str) and not _is_huge(value) else type(value).__name__
    return text if len(text) <= 40 else text[:37] + "..."


def _is_huge(value: object) -> bool:
    return isinstance(value, int) and value.bit_length() > 128


def _tagged_float(value: Mapping[str, object]) -> object:
    """Decode the {"__float__": "Infinity"} of transformers 5; anything else stays a mapping."""
    named = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}
    tag = value.get("__float__")
    return named.get(tag, value) if isinstance(tag, str) and len(value) == 1 else value


def read_json(path: str | Path, *, max_bytes: int = 1 << 20) -> dict[str, object]:
    """Read a JSON object from an untrusted file: bounded in size, no duplicate keys, no NaN.

    A bare `Infinity`, which transformers 4 writes, becomes `math.inf`; `parse_config` refuses it where it is invalid.
    Raises ConfigError.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ConfigError(f"Cannot read {path.name}: {error.strerror or error}", hint=_AGAIN) from error
    if len(data) > max_bytes:
        raise ConfigError(f"{path.name} is larger than {max_bytes:,} bytes.", hint=_AGAIN)
    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique_keys, parse_constant=_constant)
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}", hint=_AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path.name} is not valid JSON: {_first_line(error)}", hint=_AGAIN) from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path.name} is not a JSON object.", hint=_AGAIN)
    return value


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ConfigError("a key appears twice in one object")
    return table


def _constant(name: str) -> float:
    if name == "NaN":
        raise ConfigError("holds NaN")
    return math.inf if name == "Infinity" else -math.inf
