"""File names as people give them: files, folders, patterns a shell did not expand, "-"."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from longmamba_mlx.documents.sanitise import one_line
from longmamba_mlx.errors import DocumentError, DocumentMissingError

MOST_FILES = 1000
_MAGIC = re.compile(r"[*?\[]")
_PACKAGES = frozenset(("node_modules", "__pycache__", "__MACOSX"))  # folders nobody means to read


@dataclass(frozen=True, slots=True)
class Gathered:
    """A file to read. `named`: the user named it, so it must not be skipped."""

    path: Path
    title: str
    named: bool


def gather(paths: Iterable[str | Path]) -> list[Gathered]:
    """The files meant, in order, each once. Folders are gone through with what is below them, by name, as a person
    counts (2 before 10); hidden files and links to folders are left out.

    Raises DocumentMissingError when a folder holds no file or a pattern fits none, DocumentError for too many files.
    """
    found: dict[str, Gathered] = {}
    for path in paths:
        for item in _files(path):
            found.setdefault(_identity(item.path), item)
            if len(found) > MOST_FILES:
                name = one_line(str(path))
                raise DocumentError(f"{name!r} holds over {MOST_FILES} files.", hint="Name those you mean.")
    return list(found.values())


def is_pattern(path: str | Path) -> bool:
    """Whether this is a pattern rather than a file: "notes/*.md"."""
    return bool(_MAGIC.search(str(path))) and "\x00" not in str(path) and not os.path.lexists(path)


def _identity(path: Path) -> str:
    """The same for every way to name a file."""
    name = str(path)
    return name if name == "-" or "\x00" in name else os.path.realpath(path)


def _files(path: str | Path) -> Iterator[Gathered]:
    name = one_line(str(path))
    if is_pattern(path):
        names = sorted(glob.iglob(str(path), recursive=True), key=_as_counted)
        matches = [Path(match) for match in names if os.path.isfile(match)]
        if not matches:
            raise DocumentMissingError(f"No file fits {name!r}.", hint="Check the pattern and the folder.")
        yield from (Gathered(match, match.name, named=False) for match in matches)
    elif str(path) and "\x00" not in str(path) and os.path.isdir(path):
        yield from _within(Path(path), name)
    else:
        yield Gathered(Path(path), Path(path).name, named=True)


def _within(folder: Path, name: str) -> Iterator[Gathered]:
    try:
        os.listdir(folder)
    except OSError as error:
        raise DocumentError(f"The folder {name!r} cannot be opened: {error.strerror}.", hint="Check it.") from None
    empty = True
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(
            (sub for sub in folders if not sub.startswith(".") and sub not in _PACKAGES), key=_as_counted
        )
        for file in sorted(files, key=_as_counted):
            path = Path(where, file)
            if not file.startswith(".") and path.is_file():
                empty = False
                yield Gathered(path, str(path.relative_to(folder)), named=False)
    if empty:
        raise DocumentMissingError(f"The folder {name!r} holds no files.", hint="Name a file, or another folder.")


def _as_counted(name: str) -> list[tuple[int, int, str]]:
    """Sorts "chapter 2" before "chapter 10", and capital letters with small ones."""
    pieces = re.split(r"(\d{1,15})", name.casefold())
    return [(1, int(piece), "") if piece.isdecimal() else (0, 0, piece) for piece in pieces]
