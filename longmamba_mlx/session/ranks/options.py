"""The options that every rank is started with."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from longmamba_mlx.errors import UsageError


@dataclass(frozen=True, slots=True)
class RankOptions:
    """The options of `read`, for each rank the same. With `each` every file is a document of its own.

    `starter` is the process that started all ranks on this machine: they end when it is gone. 0: other machines too.
    """

    files: tuple[str, ...]
    model: str
    filter: str = "longmamba"
    chunk: int | None = None
    attention_window: int | None = None
    offline: bool = False
    encoding: str = ""
    each: bool = False
    starter: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RankOptions:
        """The inverse of `to_json`. Raises UsageError for options that this version does not know."""
        try:
            table = json.loads(text)
            return cls(**{**table, "files": tuple(table["files"])})
        except (ValueError, TypeError, KeyError):
            hint = "Install the same version of longmamba-mlx on all machines."
            raise UsageError("This rank was started by another version of longmamba-mlx.", hint=hint) from None
