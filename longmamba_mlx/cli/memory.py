"""Refuse to start with less memory than the libraries need to load."""

from __future__ import annotations

import resource

from longmamba_mlx.errors import LongMambaError

# Of address space, measured on Linux with two cores: with less, OpenBLAS or MLX may end the process by themselves.
NEEDED_BYTES = 700 << 20


def require_address_space() -> None:
    """Raise LongMambaError where a limit on this process (`ulimit -v`) leaves too little."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < NEEDED_BYTES:
        raise LongMambaError(
            f"Not enough memory: this process may use {limit >> 20} MB of address space, and needs "
            f"{NEEDED_BYTES >> 20} MB to start.",
            hint="Raise the limit: ulimit -v unlimited",
        )
