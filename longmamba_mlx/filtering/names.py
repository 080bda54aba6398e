"""Filters by name, with options after colons: "paper", "document:nats=3:last=64", "decimamba:layers=12+20"."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from longmamba_mlx.errors import UsageError


def _layers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split("+"))


_OPTIONS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "theta": ("theta", float),
    "nats": ("theta", lambda text: math.exp(-float(text))),
    "clamp": ("clamp", float),
    "b": ("threshold_factor", float),
    "r": ("budget_factor", float),
    "window": ("budget_window", int),
    "first": ("protect_first", int),
    "last": ("protect_last", int),
    "reduction": ("reduction", str),
    "combine": ("combine", str),
    "layers": ("layers", _layers),
    "base": ("base", int),
    "beta": ("beta", float),
}
"""Option -> the field of FilterSettings it sets, and how its text is read."""


def parse_filter(text: str) -> tuple[str, dict[str, Any]]:
    """A filter's mode and the settings its options change. Raises UsageError for an option that is none."""
    mode, *options = text.split(":")
    changes: dict[str, Any] = {}
    for option in options:
        key, _, value = option.partition("=")
        if key not in _OPTIONS:
            raise UsageError(
                f"unknown filter option {key!r} in {text!r}", hint=f"One of: {', '.join(_OPTIONS)}; as in paper:b=0.8."
            )
        name, read = _OPTIONS[key]
        try:
            changes[name] = read(value)
        except (ValueError, OverflowError):
            raise UsageError(f"{value!r} is no value for the filter option {key}") from None
    return mode, changes
