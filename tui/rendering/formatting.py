"""Format numbers, names and lists for people."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from longmamba_mlx.events import ReadDone
from longmamba_mlx.ground.sizes import format_duration, format_size

_ENOUGH_TOKENS = 5  # of an answer, to tell its speed


def count(number: int) -> str:
    """312441 -> "312,441"."""
    return f"{number:,}"


def pluralize(number: int, noun: str) -> str:
    """1, "token" -> "1 token"; 312441 -> "312,441 tokens"."""
    return f"{count(number)} {noun}{'s' * (number != 1)}"


def remembered(state_bytes: int, *, stored: bool) -> str:
    """The size of a state in plain words: 281_000 -> "remembered in 0.3 MB"."""
    size = f"{state_bytes / 1e6:.1f} MB" if 50_000 <= state_bytes < 1e6 else format_size(state_bytes)
    return f"remembered in {size}" if stored else f"held in {size}, not saved"


def summary(done: ReadDone) -> str:
    """One line about a finished reading."""
    how = "Reopened" if done.reopened else "Read"
    if done.reopened:
        again = ": nothing had to be read again"
    else:
        again = f" · {count(done.before)} of them had been read before" if done.before else ""
    size = remembered(done.state_bytes, stored=done.stored is not None)
    return f"{how} {done.title} · {count(done.tokens)} tokens in {format_duration(done.seconds)} · {size}{again}"


def rate(tokens_per_second: float) -> str:
    """5214.3 -> "5,214 tok/s"."""
    if not math.isfinite(tokens_per_second) or tokens_per_second < 0:
        return "? tok/s"
    return f"{tokens_per_second:,.0f} tok/s" if tokens_per_second >= 10 else f"{tokens_per_second:.1f} tok/s"


def rate_of(tokens: int, seconds: float) -> str:
    """The speed of an answer; "" if it is too short to measure."""
    return rate(tokens / seconds) if tokens >= _ENOUGH_TOKENS and seconds > 0 else ""


def parameters(number: int) -> str:
    """1_340_000_000 -> "1.3 B parameters"."""
    for limit, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if number >= limit:
            return f"{number / limit:.1f}{unit} parameters"
    return f"{number} parameters"


def shorten(text: str, width: int) -> str:
    """Cut to `width` characters, the last of them an ellipsis."""
    return text if len(text) <= width else text[: max(width - 1, 0)].rstrip() + "…"


def truncate_join(parts: list[str], width: int) -> str:
    """Join parts, the most important first, leaving out the last ones until they fit into `width`."""
    kept = [part for part in parts if part]
    while len(kept) > 1 and len(" · ".join(kept)) > width:
        kept.pop()
    return shorten(" · ".join(kept), width)


def files(paths: Sequence[str]) -> str:
    """Their names without their folders: "/a/b.txt", "/c.pdf" -> "b.txt, c.pdf"."""
    return ", ".join(Path(path).name for path in paths)


def pattern(text: str) -> re.Pattern[str]:
    """Finds `text` whatever its case and however its lines are broken."""
    return re.compile(r"\s+".join(re.escape(word) for word in text.split()), re.I)


def ago(seconds: float) -> str:
    """How long ago, for a list: 40 -> "just now", 7200 -> "2 h ago", 200000 -> "2 days ago"."""
    for limit, unit in ((86400, "day"), (3600, "h"), (60, "min")):
        if seconds >= limit:
            number = int(seconds // limit)
            return f"{number} {unit}{'s' * (unit == 'day' and number != 1)} ago"
    return "just now"
