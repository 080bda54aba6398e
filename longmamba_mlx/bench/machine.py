"""The machine and versions that a figure was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("longmamba-mlx", "mlx", "mlx-lm", "numpy", "numba", "torch", "transformers", "llama-cpp-python")


def machine() -> dict[str, object]:
    """Processor, cores, memory, system: whatever is known without a privilege."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "python": platform.python_version(),
        "commit": _commit(),
    }


def versions() -> dict[str, str]:
    """Versions of this package and of the peers that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _commit() -> str:
    """The checkout's commit; empty for an installed package."""
    root = Path(__file__).resolve().parents[2]
    return _output("git", "-C", str(root), "rev-parse", "--short", "HEAD") if (root / ".git").exists() else ""


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
