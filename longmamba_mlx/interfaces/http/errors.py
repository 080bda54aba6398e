"""Errors of the HTTP server: the OpenAI error object with its status."""

from __future__ import annotations

from starlette.responses import JSONResponse

from longmamba_mlx.documents import one_line
from longmamba_mlx.errors import DocumentError, DocumentMissingError, LongMambaError, StoppedError, UsageError
from longmamba_mlx.interfaces.catalogue import UnknownDocumentError
from longmamba_mlx.interfaces.conversation import NoDocumentError
from longmamba_mlx.interfaces.engine import BusyError, ClosedError
from longmamba_mlx.interfaces.folders import OutsideError

_KINDS: tuple[tuple[type[LongMambaError], int, str], ...] = (  # the first that fits
    (OutsideError, 403, "path_not_allowed"),
    (UnknownDocumentError, 404, "document_not_found"),
    (DocumentMissingError, 404, "file_not_found"),
    (DocumentError, 400, "unreadable_document"),
    (NoDocumentError, 400, "no_document"),
    (UsageError, 400, "invalid_request"),
    (BusyError, 429, "queue_full"),
    (ClosedError, 503, "shutting_down"),
    (LongMambaError, 500, "failed"),
)
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A request that cannot be answered, and why. `param` is the field that is wrong."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    def table(self) -> dict[str, object]:
        """The error object."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole response."""
        headers = {429: {"Retry-After": "1"}, 401: {"WWW-Authenticate": "Bearer"}}.get(self.status)
        return JSONResponse(self.table(), self.status, headers)


def api_error(error: Exception) -> ApiError:
    """Convert any error to an ApiError. Unexpected errors reveal no details."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, StoppedError):  # its hint speaks of commands
        return ApiError(503, "The work was stopped; the same request resumes it.", "stopped")
    if isinstance(error, LongMambaError):
        status, code = next((status, code) for kind, status, code in _KINDS if isinstance(error, kind))
        return ApiError(status, one_line(f"{error} {error.hint or ''}", 600), code)
    return ApiError(500, "The server failed; its log says more.", "internal_error")
