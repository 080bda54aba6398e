"""Format bytes and seconds for people, and parse the sizes that they write."""

from __future__ import annotations

import math

_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def format_size(nbytes: int) -> str:
    """Decimal units, as macOS and the Hub count, with one decimal below 100: 12_600_000 -> "12.6 MB"."""
    value = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def format_duration(seconds: float) -> str:
    """Seconds: 0.42 -> "0.4 s", 125 -> "2 min 5 s", 3780 -> "1 h 3 min"."""
    if not math.isfinite(seconds) or seconds < 0:
        return "?"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def parse_size(text: str) -> int:
    """Parse a size ("500 MB", "8GB") -> bytes. Raises ValueError."""
    plain = text.strip().lower().replace(" ", "")
    number = plain.rstrip("kmgtb")
    unit = plain[len(number) :]
    factor = _UNITS.get(unit if not unit or unit.endswith("b") else f"{unit}b")
    size = float(number)
    if factor is None or not 0 <= size * factor < 1e18:  # False for NaN too
        raise ValueError("not a size")
    return int(size * factor)
