"""The remembered documents by name: what other programs list, and how they say which one they mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath

from longmamba_mlx.documents import one_line
from longmamba_mlx.errors import UsageError
from longmamba_mlx.states.state_file import StateKey
from longmamba_mlx.states.store import StateEntry, StateStore

_PREFIX = re.compile(r"[0-9a-f]{8,64}")
_SHOWN = 5  # names in a hint


class UnknownDocumentError(UsageError):
    """No remembered document has this name."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """A stored reading. `name` is its title, followed by digits of its key where another one has the same title."""

    name: str
    key: StateKey
    digest: str
    """The digest of the key: what `longmamba-mlx states` calls it."""
    source: str
    bytes: int
    done: int
    read: str
    used: float
    """When it was read or last used, in seconds since 1970."""

    @property
    def unfinished(self) -> bool:
        """Whether the reading was stopped; opening its file again resumes it."""
        return self.done < self.key.tokens

    def as_dict(self) -> dict[str, object]:
        """Return its entry in a list of documents."""
        return {
            "name": self.name,
            "key": self.digest,
            "source": self.source,
            "tokens": self.key.tokens,
            "tokens_read": self.done,
            "unfinished": self.unfinished,
            "bytes": self.bytes,
            "read": self.read,
            "used": datetime.fromtimestamp(self.used, UTC).isoformat(timespec="seconds"),
        }


def catalogue(store: StateStore, usable: Callable[[StateEntry], bool]) -> tuple[Remembered, ...]:
    """The documents of a store, the latest used first, without those whose state is not `usable`."""
    found: list[Remembered] = []
    names: set[str] = set()
    entries = [entry for entry in store.list() if entry.key is not None and not entry.problem and usable(entry)]
    complete = {entry.digest for entry in entries if not entry.unfinished}
    for entry in entries:
        if entry.unfinished and entry.digest in complete:
            continue  # the checkpoint of a reading that has been finished since
        info = entry.info or {}
        title = one_line(str(info.get("title", "")), 120) or "document"
        name = title if title.casefold() not in names else f"{title}~{entry.digest[:8]}"
        names.add(name.casefold())
        assert entry.key is not None  # noqa: S101 - filtered above
        source, read = (one_line(str(info.get(field, "")), 500) for field in ("source", "read"))
        done = entry.done if entry.unfinished else entry.key.tokens
        found.append(
            Remembered(name, entry.key, entry.digest, source, entry.nbytes, done, read, entry.modified)
        )  # fmt: skip
    return tuple(found)


def find(documents: Sequence[Remembered], name: str) -> Remembered:
    """The document with this name, its name without the ending ("alice" for alice.txt), or at least eight digits of
    its key. Upper and lower case are the same. Raises UnknownDocumentError unless there is exactly one.
    """
    wanted = name.strip().casefold()
    for means in (
        lambda document: document.name.casefold() == wanted,
        lambda document: PurePath(document.name.casefold()).stem == wanted,
        lambda document: bool(_PREFIX.fullmatch(wanted)) and document.digest.startswith(wanted),
    ):
        found = [document for document in documents if means(document)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UnknownDocumentError(
                f"{len(found)} documents are called {one_line(name, 100)!r}.", hint=f"Say which: {_names(found)}."
            )
    hint = f"Remembered are: {_names(documents)}." if documents else "None is remembered yet: read one first."
    raise UnknownDocumentError(f"No remembered document is called {one_line(name, 100)!r}.", hint=hint)


def _names(documents: Sequence[Remembered]) -> str:
    more = f", and {len(documents) - _SHOWN} more" if len(documents) > _SHOWN else ""
    return ", ".join(document.name for document in documents[:_SHOWN]) + more
