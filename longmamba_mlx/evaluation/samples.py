"""One line per measured question, in a file from which a later run resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from longmamba_mlx.errors import DiskError
from longmamba_mlx.paths import private_file, private_folder

VERSION = 3  # raised when the same options would give other documents, questions or scores


@dataclass(frozen=True, slots=True)
class Cell:
    """What is averaged: `length` in tokens (0 where documents have their own), `depth` from 0 to 1 or None for
    anywhere, `group` a further name ("0-4k" in LongBench-E)."""

    task: str
    length: int
    depth: float | None = None
    group: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One question with one filter. `nll` in nats per token of the right answer; `tokens` of document; `found` False
    if the answer says that the document does not contain it; `part` the kind of question if a cell has several."""

    cell: Cell
    filter: str
    document: int
    question: int
    score: float
    nll: float | None = None
    nll_whole: float | None = None
    answer: str = ""
    expected: tuple[str, ...] = ()
    tokens: int = 0
    found: bool = True
    part: str = ""


Key = tuple[Cell, str, int]


class SampleLog:
    """The samples measured so far, by document and filter; on disk where `path` is given.

    A line names the `run` it belongs to (a digest of everything that decides its result), so that one file may hold
    several and a changed option never mixes with old lines. A line cut off by a crash is passed over.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._known: dict[tuple[str, Key], dict[int, Sample]] = {}
        if path is not None and path.exists():
            for run, sample in _lines(path):
                self._keep(run, sample)

    def known(self, run: str, cell: Cell, filter: str, document: int, questions: int) -> list[Sample] | None:
        """The samples of one document, where all of its questions were measured."""
        found = self._known.get((run, (cell, filter, document)), {})
        return [found[number] for number in sorted(found)] if len(found) >= questions else None

    def add(self, run: str, samples: Iterable[Sample]) -> None:
        """Write the samples of a document to disk at once. Raises DiskError."""
        lines = []
        for sample in samples:
            self._keep(run, sample)
            lines.append(json.dumps({"run": run, **_flat(sample)}, ensure_ascii=False) + "\n")
        if self.path is None:
            return
        private_folder(self.path.parent)
        try:
            with private_file(self.path).open("ab") as file:
                if file.tell() and not _ends_line(self.path):
                    file.write(b"\n")
                file.write("".join(lines).encode("utf-8"))
        except OSError as error:
            raise DiskError(f"Cannot write {self.path}: {error.strerror}.") from None

    def _keep(self, run: str, sample: Sample) -> None:
        """The last line of a question counts, where files were put together."""
        self._known.setdefault((run, _key(sample)), {})[sample.question] = sample


def run_digest(**facts: Any) -> str:
    """A short name for everything that decides a sample's result."""
    text = json.dumps({"version": VERSION, **facts}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _key(sample: Sample) -> Key:
    return sample.cell, sample.filter, sample.document


def _flat(sample: Sample) -> dict[str, Any]:
    values = asdict(sample)
    return {**values.pop("cell"), **values}


def _lines(path: Path) -> Iterator[tuple[str, Sample]]:
    names = {field.name for field in fields(Cell)}
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DiskError(f"Cannot read {path}: {error.strerror}.") from None
    for line in text.splitlines():
        try:
            values = json.loads(line)
            run = str(values.pop("run"))
            cell = Cell(**{name: values.pop(name) for name in names})
            yield run, Sample(cell=cell, **{**values, "expected": tuple(values["expected"])})
        except (ValueError, TypeError, KeyError, AttributeError):
            continue


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
