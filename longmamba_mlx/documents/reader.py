"""Read files and pipes as documents; refuse what cannot be read, with one line that names its format."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Protocol, cast

from longmamba_mlx.documents.decode import UndecodableError, decode_clean, encoding_note
from longmamba_mlx.documents.document import Document, Part, join
from longmamba_mlx.documents.encodings import asked_for
from longmamba_mlx.documents.gathering import Gathered, gather
from longmamba_mlx.documents.kinds import HEAD, Format, known_format
from longmamba_mlx.documents.sanitise import one_line
from longmamba_mlx.errors import DocumentError, DocumentMissingError, StoppedError
from longmamba_mlx.ground.sizes import format_size
from longmamba_mlx.ground.steps import Stop

MOST_BYTES = 2 << 30
MOST_PARSED_BYTES = 512 << 20  # of a file that needs a parser
_BLOCK = 1 << 20
_SPLIT = "Split it into smaller files and read the part you need."
_MOST_NOTES = 3  # files of a folder that are told one by one


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_document(path: str | Path, *, encoding: str = "") -> Document:
    """Read a file of any format in docs/documents.md, a folder or pattern of them, or "-", standard input.

    Content and name decide the format. encoding: that of texts, web pages and mails, overriding what they declare; ""
    detects it. Raises DocumentMissingError when there is no such file; DocumentError when it is a
    device, not readable, too large, empty, of another format, encrypted, scanned, damaged, or not text; UsageError for
    an unknown encoding.
    """
    return read_documents([path], encoding=encoding)


def read_documents(paths: Sequence[str | Path], *, should_stop: Stop | None = None, encoding: str = "") -> Document:
    """Read files, folders, patterns ("notes/**/*.md") and "-" as one document, in the order given.

    `parts` holds the extent of each file. In a folder or pattern, unreadable files are skipped with a note. `encoding`
    and errors are those of `read_document`; also raises StoppedError once `should_stop()`, except while it waits for
    standard input.
    """
    how = _How(asked_for(encoding), should_stop)
    total = 0
    documents: list[Document] = []
    passed: list[DocumentError] = []
    for found in gather(paths):
        try:
            documents.append(_read_one(found, how))
        except DocumentError as error:
            if found.named:
                raise
            passed.append(error)
            continue
        total += len(documents[-1].text)
        if total > MOST_BYTES:
            raise DocumentError(f"These files are over {format_size(MOST_BYTES)} together.", hint=_SPLIT)
    if passed and not documents:
        more = f", and {len(passed) - 1} more like it" if len(passed) > 1 else ""
        raise DocumentError(f"Nothing there can be read: {str(passed[0]).rstrip('.')}{more}.", hint=passed[0].hint)
    if len(documents) > 1:
        documents = [_with_names(document) for document in documents]
    return _with_notes(_named(join(documents), paths), _passed_over(passed))


def from_stdin(stream: _Readable | IO[str], *, encoding: str = "") -> Document:
    """Read a binary stream (or a text stream with a `buffer`) to its end. Raises DocumentError."""
    binary = cast("_Readable", getattr(stream, "buffer", stream))
    try:
        data = _read_all(binary, "stdin")
    except OSError as error:
        raise DocumentError(f"Standard input cannot be read: {error.strerror}.", hint="Give a file.") from None
    return from_bytes(data, title="stdin", source="stdin", encoding=encoding)


def from_bytes(data: bytes, *, title: str, source: str, encoding: str = "") -> Document:
    """A file's content -> Document. Raises DocumentError when it is empty, of another format, or not text."""
    try:
        return _from_file(io.BytesIO(data), title, source, _How(asked_for(encoding)))
    except OSError as error:  # no room for a temporary file, no child process
        raise _unreadable(title, error) from None


@dataclass(frozen=True, slots=True)
class _How:
    """Options for each file: the codec of its text ("": detect it), and when to stop."""

    encoding: str = ""
    should_stop: Stop | None = None


def _read_one(found: Gathered, how: _How) -> Document:
    if str(found.path) == "-" and found.named:
        import sys

        return from_stdin(sys.stdin.buffer, encoding=how.encoding)
    name = one_line(str(found.path))
    if found.named and _is_pipe(found.path):  # also `<(command)` of a shell
        return _read_pipe(found.path, name, how)
    return _read_file(found.path, name, one_line(found.title) or name, how)


def _from_file(file: IO[bytes], title: str, source: str, how: _How) -> Document:
    """An open file that can be read from its start, of any format."""
    known = known_format(file.read(HEAD), title)
    file.seek(0)
    if known is None:
        try:
            found = decode_clean(_Counted(file, title, how.should_stop), how.encoding)
        except UndecodableError as error:
            hint = "Save it as UTF-8 text, or name its encoding: --encoding NAME"
            raise DocumentError(f"{title!r} is not text: {error}.", hint=hint) from None
        document = Document(title, found.text, source)
        return _with_notes(document, [encoding_note(found.note)] if found.note else [])
    if not known.reader:
        raise DocumentError(f"{title!r} is {known.name}, which cannot be read.", hint=known.hint)
    return _parse(file, known, title, source, how)


def _parse(file: IO[bytes], known: Format, title: str, source: str, how: _How) -> Document:
    """A format that needs a parser, which runs in a child process."""
    from longmamba_mlx.documents.child import parse
    from longmamba_mlx.documents.formats.builder import Refused
    from longmamba_mlx.documents.refusals import refusal

    if file.seek(0, os.SEEK_END) > MOST_PARSED_BYTES:
        raise DocumentError(
            f"{title!r} is over the limit of {format_size(MOST_PARSED_BYTES)} for {known.name}.", hint=_SPLIT
        )
    try:
        if isinstance(file, io.BytesIO):  # the child wants a file it can move in
            with tempfile.TemporaryFile() as copy:
                file.seek(0)
                shutil.copyfileobj(file, copy)
                copy.flush()
                parsed = parse(known.reader, copy, how.should_stop, how.encoding)
        else:
            parsed = parse(known.reader, file, how.should_stop, how.encoding)
    except Refused as refused:
        raise refusal(title, refused) from None
    return Document(title, parsed.text, source, (Part(title, source, 0, len(parsed.text), parsed.marks, parsed.notes),))


def _read_file(path: Path, name: str, title: str, how: _How) -> Document:
    descriptor = _open(path, name)
    try:
        _check_kind(os.fstat(descriptor), name)
        with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
            return _from_file(cast("IO[bytes]", file), title, str(path), how)
    except OSError as error:
        raise _unreadable(name, error) from None
    finally:
        os.close(descriptor)


def _is_pipe(path: Path) -> bool:
    try:
        return path.is_fifo()
    except (OSError, ValueError):  # an impossible name: opening it says so
        return False


def _read_pipe(path: Path, name: str, how: _How) -> Document:
    """A named pipe to its end; waits for its writer, as `cat` does."""
    try:
        with open(path, "rb", buffering=0) as stream:
            data = _read_all(cast("_Readable", stream), name)
    except OSError as error:
        raise _unreadable(name, error) from None
    title = "pipe" if path.parent.name == "fd" else one_line(path.name)
    return from_bytes(data, title=title, source=str(path), encoding=how.encoding)


def _open(path: Path, name: str) -> int:
    try:
        # O_NONBLOCK and O_NOCTTY: a pipe must not hang and a terminal must not be taken before it is refused.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        what = "is a link to a missing file" if path.is_symlink() else "does not exist"
        raise DocumentMissingError(f"{name!r} {what}.", hint="Check the name and the folder.") from None
    except PermissionError:
        raise DocumentError(f"{name!r} may not be read.", hint="Give yourself the right to read it.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _unreadable(name, error) from None


def _unreadable(name: str, error: OSError | ValueError) -> DocumentError:
    reason = getattr(error, "strerror", None) or "its name is impossible"
    return DocumentError(f"{name!r} cannot be read: {reason}.", hint="Check the file and its disk.")


def _check_kind(status: os.stat_result, name: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise DocumentError(f"{name!r} is a folder.", hint="Name a folder that can be opened.")
    if not stat.S_ISREG(status.st_mode):
        raise DocumentError(
            f"{name!r} is a device, not a file.",
            hint="Pipe it into the command and give - as the file.",
        )
    if status.st_size > MOST_BYTES:
        raise _too_large(name)


def _named(document: Document, paths: Sequence[str | Path]) -> Document:
    """A folder or pattern read as a whole goes by its own name, not by those of all its files."""
    if len(paths) != 1 or len(document.parts) == 1:
        return document
    path = Path(paths[0])
    title = path.resolve().name if path.is_dir() else path.name
    return replace(document, title=one_line(f"{title} ({len(document.parts)} files)"), source=str(path))


def _with_names(document: Document) -> Document:
    """The document, its notes saying which file they are about."""
    parts = (replace(part, notes=tuple(f"{part.title}: {note}" for note in part.notes)) for part in document.parts)
    return replace(document, parts=tuple(parts))


def _passed_over(errors: list[DocumentError]) -> list[str]:
    notes = [f"Passed over: {error}" for error in errors[:_MOST_NOTES]]
    if len(errors) > _MOST_NOTES:
        notes.append(f"Passed over: {len(errors) - _MOST_NOTES} more files that cannot be read.")
    return notes


def _with_notes(document: Document, notes: list[str]) -> Document:
    """The document, its first part bearing more notes."""
    if not notes:
        return document
    first, *others = document.parts
    return replace(document, parts=(replace(first, notes=(*first.notes, *notes)), *others))


def _too_large(name: str) -> DocumentError:
    return DocumentError(f"{name!r} is over the limit of {format_size(MOST_BYTES)}.", hint=_SPLIT)


class _Counted:
    """A file with a size limit while it is read, as it may grow, that stops once `should_stop()`."""

    def __init__(self, file: IO[bytes], name: str, should_stop: Stop | None) -> None:
        self._file, self._name, self._total, self._should_stop = file, name, 0, should_stop

    def seek(self, position: int, /) -> int:
        self._total = position
        return self._file.seek(position)

    def read(self, size: int = -1, /) -> bytes:
        if self._should_stop is not None and self._should_stop():
            raise StoppedError
        if size < 0:
            return _read_all(self._file, self._name)
        block = self._file.read(size)
        self._total += len(block)
        if self._total > MOST_BYTES:
            raise _too_large(self._name)
        return block


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
