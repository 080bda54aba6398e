"""Every error a user can cause or meet: one line, a hint, an exit code (docs: README, "Exit codes")."""

from __future__ import annotations


class LongMambaError(Exception):
    """Base of all errors this package raises on purpose.

    `str(error)` is one line for a person; `hint` says what to do about it; `exit_code` is what the command line
    returns.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(LongMambaError):
    """Options that contradict each other or have no meaning."""

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
    """Writing failed: no space, no permission, a broken disk."""

    exit_code = 74


class StoppedError(LongMambaError):
    """A reading was stopped on request and can be taken up again.

    The hint begins with "The same command": where there are other words for it, as in the chat, they take their place.
    """

    exit_code = 75

    def __init__(
        self, message: str = "The reading was stopped.", *, hint: str = "The same command takes it up again."
    ) -> None:
        super().__init__(message, hint=hint)


class ModelError(LongMambaError):
    """A model folder that is missing, incomplete or not supported."""


class ConfigError(ModelError):
    """A model's config.json holds something impossible or unknown."""


class CalibrationError(ModelError):
    """A calibration that is missing, broken or belongs to another model."""


class StateError(LongMambaError):
    """A remembered document that is broken or belongs to something else."""


class NumericError(LongMambaError):
    """NaN or infinity where numbers were expected."""
