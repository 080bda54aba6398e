"""Files and pipes -> documents. What cannot be read is refused with one line that says what it is."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol, cast

from longmamba_mlx.documents.decode import UndecodableError, decode
from longmamba_mlx.documents.document import Document, join
from longmamba_mlx.documents.sanitize import one_line
from longmamba_mlx.documents.sniff import HEAD, known_format
from longmamba_mlx.errors import DocumentError, DocumentMissingError

MOST_BYTES = 512 << 20
_BLOCK = 1 << 20
_SPLIT = "Split it into smaller files and read the part you need."


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_document(path: str | Path) -> Document:
    """Read one text or Markdown file; "-" is standard input. The content decides what it is, not the name.

    Raises DocumentMissingError when there is no such file; DocumentError when it is a folder, a pipe or
    device, not readable, over 512 MB, empty, of a format that is not read yet, or not text.
    """
    if str(path) == "-":
        import sys

        return from_stdin(sys.stdin.buffer)
    name = one_line(str(path))
    return from_bytes(_read_file(Path(path), name), title=one_line(Path(path).name) or name, source=str(path))


def read_documents(paths: Sequence[str | Path]) -> Document:
    """Read several files as one document, in the order given; `parts` tells whose text is where."""
    total = 0
    documents = []
    for path in paths:
        documents.append(read_document(path))
        total += len(documents[-1].text)
        if total > MOST_BYTES:
            raise DocumentError(f"These files are over {MOST_BYTES >> 20} MB together.", hint=_SPLIT)
    return join(documents)


def from_stdin(stream: _Readable | IO[str]) -> Document:
    """Read a binary stream (or a text stream with a `buffer`) to its end. Raises DocumentError."""
    binary = cast("_Readable", getattr(stream, "buffer", stream))
    try:
        data = _read_all(binary, "stdin")
    except OSError as error:
        raise DocumentError(f"Standard input cannot be read: {error.strerror}.", hint="Give a file.") from None
    return from_bytes(data, title="stdin", source="stdin")


def from_bytes(data: bytes, *, title: str, source: str) -> Document:
    """A file's content -> Document. Raises DocumentError when it is empty, of another format, or not text."""
    known = known_format(data[:HEAD])
    if known is not None:
        kind, hint = known
        raise DocumentError(f"{title!r} is {kind}, which cannot be read yet.", hint=hint)
    try:
        text = decode(data)
    except UndecodableError as error:
        raise DocumentError(f"{title!r} is not text: {error}.", hint="Save it as UTF-8 text.") from None
    return Document(title, text, source)


def _read_file(path: Path, name: str) -> bytes:
    try:
        # O_NONBLOCK and O_NOCTTY: a pipe must not hang and a terminal must not be taken before it is refused.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            _check_kind(os.fstat(descriptor), name)
            with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
                return _read_all(file, name)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        what = "is a link to a file that is not there" if path.is_symlink() else "does not exist"
        raise DocumentMissingError(f"{name!r} {what}.", hint="Check the name and the folder.") from None
    except PermissionError:
        raise DocumentError(f"{name!r} may not be read.", hint="Give yourself the right to read it.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or "its name is impossible"
        raise DocumentError(f"{name!r} cannot be read: {reason}.", hint="Check the file and its disk.") from None


def _check_kind(status: os.stat_result, name: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise _folder_error(name)
    if not stat.S_ISREG(status.st_mode):
        raise DocumentError(
            f"{name!r} is a pipe or device, not a file.",
            hint="Pipe it into the command and give - as the file.",
        )
    if status.st_size > MOST_BYTES:
        raise _too_large(name)


def _folder_error(name: str) -> DocumentError:
    return DocumentError(f"{name!r} is a folder.", hint="Name the files in it, for example FOLDER/*.txt.")


def _too_large(name: str) -> DocumentError:
    return DocumentError(f"{name!r} is over the limit of {MOST_BYTES >> 20} MB.", hint=_SPLIT)


def _read_all(stream: _Readable, name: str) -> bytes:
    """Read to the end, and never more than the limit: a file may grow and a pipe may have no end."""
    blocks = []
    total = 0
    while block := stream.read(_BLOCK):
        total += len(block)
        if total > MOST_BYTES:
            raise _too_large(name)
        blocks.append(block)
    return b"".join(blocks)
