"""The fields of a request's JSON, each checked once."""

from __future__ import annotations

import json
import math
from typing import Any

from starlette.requests import Request

from longmamba_mlx.ground.sizes import format_size
from longmamba_mlx.interfaces.http.errors import ApiError

Table = dict[str, Any]


async def read_json(request: Request, most: int) -> Table:
    """The body, a JSON object of at most `most` bytes. Raises ApiError."""
    blocks, total = [], 0
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < 20 and int(declared) > most:
        raise _too_large(most)
    async for block in request.stream():
        total += len(block)
        if total > most:
            raise _too_large(most)
        blocks.append(block)
    try:
        table = json.loads(b"".join(blocks))
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not valid JSON.", "invalid_json") from None
    if not isinstance(table, dict):
        raise ApiError(400, "The body must be a JSON object.", "invalid_json")
    return table


def text(table: Table, name: str, default: str | None = None) -> str:
    """A string field; `default` if it is missing or null. Raises ApiError, also without a default."""
    value = table.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise wrong(name, "must be a text" if value is not None else "is missing")
    return value


def flag(table: Table, name: str) -> bool:
    """A truth value, False where it is missing or null."""
    value = table.get(name)
    if value is not None and not isinstance(value, bool):
        raise wrong(name, "must be true or false")
    return bool(value)


def number(table: Table, name: str, default: float, low: float, high: float) -> float:
    """A number from `low` to `high`; `default` where it is missing or null."""
    value = table.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise wrong(name, "must be a number")
    if not low <= value <= high:
        raise wrong(name, f"must be from {low:g} to {high:g}")
    return float(value)


def whole(table: Table, name: str, default: int, low: int, high: int) -> int:
    """A whole number from `low` to `high`; `default` where it is missing or null."""
    value = table.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise wrong(name, "must be a whole number")
    if value is not None and not low <= value <= high:
        raise wrong(name, f"must be from {low:,} to {high:,}")
    return default if value is None else int(value)


def wrong(name: str, what: str) -> ApiError:
    """The error for a field."""
    return ApiError(400, f"{name!r} {what}.", "invalid_value", name)


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"The body is over the limit of {format_size(most)}.", "body_too_large")
