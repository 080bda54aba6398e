"""Who may talk to the server: the holder of the key; without one, programs of this machine, and no foreign web page."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from longmamba_mlx.interfaces.http.errors import ApiError

LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))


@dataclass(frozen=True)
class Guard:
    """ASGI middleware. `key`: "" where none is needed. `origins`: web pages that may call the server.

    Without a key the Host must be this machine: a web page whose name was pointed at it (DNS rebinding) has another.
    """

    app: ASGIApp
    key: str
    origins: Sequence[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._refusal(scope) if scope["type"] == "http" else None
        await (self.app if error is None else error.response())(scope, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins and "*" not in self.origins:
            return ApiError(403, "Web pages may not call this server; --cors ORIGIN allows one.", "origin_not_allowed")
        if scope["method"] == "OPTIONS" or scope["path"] == "/health":
            return None
        if not self.key:
            if _name(headers.get("host", "")) in LOOPBACK:
                return None
            return ApiError(403, "This server is for its own machine: call it as 127.0.0.1.", "host_not_allowed")
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self.key.encode()):
            return None
        return ApiError(401, "The API key is missing or wrong.", "invalid_api_key")


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
