"""The hostfile of `mlx.launch`: the machines of the ranks."""

from __future__ import annotations

import json
import re
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from longmamba_mlx.errors import UsageError

LOCAL = "127.0.0.1"
MOST_RANKS = 64
_NAME = re.compile(r"[^\s-]\S*$")  # no option of ssh


def on_this_machine(ranks: int) -> list[dict[str, Any]]:
    """The entries of a hostfile for ranks that all run here."""
    return [{"ssh": LOCAL, "ips": [LOCAL]} for _ in range(ranks)]


def from_file(path: Path) -> list[dict[str, Any]]:
    """The entries of a hostfile. Raises UsageError for one that `mlx.launch` would not take."""
    hint = 'One entry for each Mac: [{"ssh": "mac1.local", "ips": ["10.0.0.1"]}, ...]; `mlx.distributed_config` helps.'
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"Cannot read the hostfile {str(path)!r}: {error.strerror}.", hint=hint) from None
    except ValueError:
        raise UsageError(f"The hostfile {str(path)!r} is not JSON.", hint=hint) from None
    entries = found.get("hosts") if isinstance(found, dict) else found
    if not isinstance(entries, list) or not all(_is_entry(entry) for entry in entries):
        raise UsageError(f"The hostfile {str(path)!r} does not list hosts with their addresses.", hint=hint)
    if not 2 <= len(entries) <= MOST_RANKS:
        raise UsageError(f"The hostfile {str(path)!r} lists {len(entries)} hosts, not 2 to {MOST_RANKS}.", hint=hint)
    return entries


def free_ports(count: int) -> int:
    """Return the first of `count` consecutive unused ports. Raises UsageError."""
    for _ in range(50):
        with socket.socket() as probe:
            probe.bind((LOCAL, 0))
            first = int(probe.getsockname()[1])
        try:
            with ExitStack() as held:
                for port in range(first, first + count):
                    held.enter_context(socket.socket()).bind((LOCAL, port))
        except (OSError, OverflowError):
            continue
        return first
    raise UsageError(f"No {count} neighbouring ports are free.", hint="Try again.")


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("ssh"), str) or not _NAME.match(entry["ssh"]):
        return False
    ips = entry.get("ips")
    return isinstance(ips, list) and bool(ips) and all(isinstance(ip, str) and ip for ip in ips)
