"""What `mcp` and `serve` share: the model and the documents they serve, and the packages they need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from longmamba_mlx.cli.fetch_model import chosen
from longmamba_mlx.errors import UsageError
from longmamba_mlx.registry.resolve import DEFAULT

if TYPE_CHECKING:
    from longmamba_mlx.interfaces.library import Library


def library_of(
    allow: list[str] | None,
    model: str | None,
    *,
    filter: str,
    chunk: int | None,
    attention_window: int | None,
    offline: bool,
) -> Library:
    """The documents of a model (None: the user's own, or the built-in one), which is loaded when it is first used.
    Raises UsageError for a folder not there."""
    from functools import partial

    from longmamba_mlx.interfaces.folders import Folders
    from longmamba_mlx.interfaces.library import Library
    from longmamba_mlx.session.api import load

    found = chosen(model, offline=offline) or DEFAULT
    name = Path(found).expanduser().resolve().name if Path(found).expanduser().is_dir() else found
    loading = partial(load, found, filter=filter, attention_window=attention_window, offline=offline)
    return Library(loading, Folders.of(allow or []), name=name, chunk=chunk)


def missing(error: ImportError, extra: str) -> UsageError:
    """The error for a package of an extra that is not installed; any other ImportError is raised again."""
    if (error.name or "").startswith("longmamba_mlx"):
        raise error
    return UsageError(
        f"This command needs the package {error.name!r}.", hint=f"Install it: pip install 'longmamba-mlx[{extra}]'"
    )
