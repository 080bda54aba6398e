"""Every file as a document of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from longmamba_mlx.documents.gathering import Gathered, gather
from longmamba_mlx.errors import DocumentError
from longmamba_mlx.events import Event, Notice

Opener = Callable[[list[str]], Iterator[Event]]
"""Opens files as one document."""


def open_each(files: Sequence[str], opener: Opener) -> Iterator[Event]:
    """Open every file by itself: the events of `opener` for one after the other. Raises as `open_one`."""
    for found in gather(files):
        yield from open_one(found, opener)


def open_one(found: Gathered, opener: Opener) -> Iterator[Event]:
    """Open one file. Raises DocumentError where it cannot be read and was named; otherwise it is skipped."""
    try:
        yield from opener([str(found.path)])
    except DocumentError as error:
        if found.named:
            raise
        yield Notice(f"{found.title} is skipped: {error}")
