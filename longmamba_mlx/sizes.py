"""Format numbers of bytes for people."""

from __future__ import annotations


def format_size(nbytes: int) -> str:
    """Decimal units, as macOS and the Hub count, with one decimal below 100: 12_600_000 -> "12.6 MB"."""
    value = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
