"""`serve`: the OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import sys
from typing import TYPE_CHECKING

from longmamba_mlx.cli.library import missing
from longmamba_mlx.errors import UsageError

if TYPE_CHECKING:
    from longmamba_mlx.interfaces.library import Library


def serve_http(
    library: Library, version: str, *, host: str, port: int, key: str, cors: list[str], queue: int, max_tokens: int
) -> None:
    """Serve until a signal. Raises UsageError without the packages, a key for a host that others reach, or the port."""
    if not key and not _is_loopback(host):
        raise UsageError(
            f"Other machines reach {host!r}: a key is needed.", hint="Give --api-key, or set LONGMAMBA_API_KEY."
        )
    try:
        from longmamba_mlx.interfaces.http.app import application, run
        from longmamba_mlx.interfaces.http.service import Service
    except ImportError as error:
        raise missing(error, "serve") from None
    from longmamba_mlx.interfaces.engine import Engine

    listening = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening.getsockname()[1]}/v1"
    print(f"Serving {library.name} at {url} (Ctrl-C ends it)", file=sys.stderr, flush=True)
    service = Service(library, Engine(queue), version, max_tokens=max_tokens)
    asyncio.run(run(application(service, key=key, origins=cors), listening))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"There is no host {host!r}: {error.strerror}.", hint="Give --host an address.") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(512)
    except OSError as error:
        listening.close()
        hint = "Another program may have it: give another --port."
        raise UsageError(f"Cannot listen on {host}:{port}: {error.strerror}.", hint=hint) from None
    return listening
