"""A conversation as Markdown, and writing it to a file that is never half there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from longmamba_mlx.documents.sanitize import sanitize
from longmamba_mlx.errors import DiskError, UsageError
from longmamba_mlx.session import Answer


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and what came of it. `mark` says what the reader should know: "stopped", an error, or ""."""

    question: str
    text: str
    mark: str
    answer: Answer | None


def to_markdown(title: str, turns: list[Turn]) -> str:
    """The whole conversation, sanitised: questions as headings, passages as quotes."""
    parts = [f"# {_line(title) or 'longmamba-mlx'}"]
    for turn in turns:
        parts.append(f"## {_line(turn.question)}")
        parts.append(sanitize(turn.text).strip() or "(no answer)")
        if turn.mark:
            parts.append(f"*{_line(turn.mark)}*")
        passages = turn.answer.passages if turn.answer else ()
        if passages:
            parts.append("Related passages:")
        for passage in passages:
            place = f"¶ {passage.number}" + (f", {_line(passage.heading)}" if passage.heading else "")
            label = f"**{place}**" + (" ✓ quote" if passage.quoted else "")
            parts.append("\n".join(f"> {line}".rstrip() for line in [label, "", *sanitize(passage.text).split("\n")]))
    return "\n\n".join(parts) + "\n"


def write_new(path: Path, text: str) -> None:
    """Write a file that does not exist yet, whole or not at all.

    Raises UsageError when the file exists, DiskError when it cannot be written.
    """
    if path.exists():
        raise UsageError(f"{path} exists already", hint="Choose another name: nothing is overwritten.")
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = file.name
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise DiskError(f"{path}: {error.strerror or error}", hint="Choose another folder.") from error


def _line(text: str) -> str:
    return sanitize(" ".join(text.split()))
