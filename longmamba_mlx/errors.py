"""Errors shown to users: one line, a hint, and an exit code."""

from __future__ import annotations


class LongMambaError(Exception):
    """Base of all errors this package raises on purpose.

    `str(error)` is one line for the user; `hint` says what to do; `exit_code` is what the command line returns.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


EXIT_CODES: dict[int, str] = {
    0: "ok",
    1: "failure",
    2: "usage",
    3: "not found (`--fail-if-not-found`)",
    65: "unreadable document",
    66: "no such file or model",
    69: "no usable MLX",
    74: "disk or output",
    75: "stopped, the same command resumes",
    130: "interrupted",
}
"""What the command line returns; docs/reference/cli.md lists them."""

INTERRUPTED = 130


class UsageError(LongMambaError):
    """Invalid options, or options that contradict each other."""

    exit_code = 2


class DocumentError(LongMambaError):
    """A document that cannot be read: empty, binary, undecodable, unreadable."""

    exit_code = 65


class DocumentMissingError(DocumentError):
    """No such file."""

    exit_code = 66


class NoMLXError(LongMambaError):
    """MLX is not installed or does not load on this machine."""

    exit_code = 69


class DiskError(LongMambaError):
    """Writing to disk failed: no space, no permission, a broken disk."""

    exit_code = 74


class StoppedError(LongMambaError):
    """A reading was stopped on request and can be resumed.

    The hint begins with "The same command"; the chat, which has no command line, replaces these words.
    """

    exit_code = 75

    def __init__(
        self, message: str = "The reading was stopped.", *, hint: str = "The same command resumes it."
    ) -> None:
        super().__init__(message, hint=hint)


class ModelError(LongMambaError):
    """A model folder that is missing, incomplete or not supported."""


class ModelMissingError(ModelError):
    """No model of that name."""

    exit_code = 66


class ConfigError(ModelError):
    """A model's config.json has an invalid or unknown value."""


class CalibrationError(ModelError):
    """A calibration that is missing, broken or belongs to another model."""


class StateError(LongMambaError):
    """A stored state that is broken or was made for another document or model."""


class StateMissingError(StateError):
    """No such file of an exported state."""

    exit_code = 66


class NumericError(LongMambaError):
    """NaN or infinity where finite numbers were expected."""
