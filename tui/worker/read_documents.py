"""The documents that were read: their facts, their files, and whether those have changed on disk since."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from longmamba_mlx.events import ReadDone
from longmamba_mlx.tui.worker.file_stamps import Stamps, changed_files, take_stamps


@dataclass(frozen=True, slots=True)
class ReadFiles:
    """A document's facts and paths, and the stamps of its files when it was read."""

    done: ReadDone
    paths: tuple[str, ...] = ()
    stamps: Stamps = field(default_factory=dict)


class ReadDocuments:
    """All documents that were read, by the digest of their text."""

    def __init__(self) -> None:
        self._read: dict[str, ReadFiles] = {}

    def __getitem__(self, digest: str) -> ReadFiles | None:
        return self._read.get(digest)

    def add(self, done: ReadDone, paths: tuple[str, ...], stamps: Stamps) -> None:
        """A document was read from its files."""
        self._read[done.digest] = ReadFiles(done, paths, stamps)

    def read_again(self, done: ReadDone) -> None:
        """A document was read from memory, by another model."""
        before = self._read.get(done.digest)
        self._read[done.digest] = ReadFiles(done) if before is None else replace(before, done=done)

    def files_of(self, digest: str) -> tuple[str, ...]:
        """The paths a document was read from; () when they are not known."""
        read = self._read.get(digest)
        return () if read is None else read.paths

    def changed(self, digest: str) -> list[str]:
        """Names of a document's files that have changed on disk since it was read."""
        read = self._read.get(digest)
        return [] if read is None else changed_files(read.stamps)

    def accept(self, digest: str) -> None:
        """Take a document's files as they are now for unchanged."""
        if (read := self._read.get(digest)) is not None:
            self._read[digest] = replace(read, stamps=take_stamps(read.paths))
