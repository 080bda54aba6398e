"""`mcp`: the MCP server on standard input and output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from longmamba_mlx.cli.library import missing

if TYPE_CHECKING:
    from longmamba_mlx.interfaces.library import Library


def serve_mcp(library: Library, version: str) -> None:
    """Serve until standard input ends. Raises UsageError without the SDK."""
    try:
        import anyio

        from longmamba_mlx.interfaces.mcp_server import Server
    except ImportError as error:
        raise missing(error, "mcp") from None
    from longmamba_mlx.interfaces.engine import Engine

    if sys.stdin.isatty():
        print("An MCP client starts this command and talks to it: docs/interfaces.md. Ctrl-D ends it.", file=sys.stderr)
    anyio.run(Server(library, Engine(), version).run_stdio_async)
