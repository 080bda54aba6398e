"""A conversation as Markdown or JSON, and writing it to a file that is never half there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from longmamba_mlx.documents.sanitise import sanitise
from longmamba_mlx.errors import UsageError
from longmamba_mlx.events import Passage
from longmamba_mlx.tui.history.records import Exchange, Reply
from longmamba_mlx.tui.rendering import formatting
from longmamba_mlx.tui.rendering.safe_text import one_line


def export(path: Path, title: str, exchanges: Sequence[Exchange]) -> None:
    """Write a new file: JSON when its name ends in .json, else Markdown. Raises UsageError, DiskError."""
    form = to_json if path.suffix.lower() == ".json" else to_markdown
    write_new(path, form(title, exchanges))


def to_json(title: str, exchanges: Sequence[Exchange]) -> str:
    """The whole conversation with every passage's place in the document."""
    data = {"document": one_line(title), "exchanges": [exchange.as_json() for exchange in exchanges]}
    return json.dumps(data, ensure_ascii=False, indent=2) + "\n"


def to_markdown(title: str, exchanges: Sequence[Exchange]) -> str:
    """The whole conversation, sanitised: questions as headings, passages as quotes.

    If not all questions were about the same files, headings name them.
    """
    parts = [f"# {one_line(title) or 'longmamba-mlx'}"]
    several = len({exchange.files for exchange in exchanges}) > 1
    level = "###" if several else "##"
    for files, asked in groupby(exchanges, key=lambda exchange: exchange.files):
        if several:
            parts.append(f"## {one_line(formatting.files(files)) or 'Files not recorded'}")
        for exchange in asked:
            parts.extend(_exchange(exchange, level))
    return "\n\n".join(parts) + "\n"


def _exchange(exchange: Exchange, level: str) -> list[str]:
    parts = [f"{level} {one_line(exchange.question)}"]
    if exchange.how.label:
        parts.append(f"*{one_line(exchange.how.label)}*")
    for reply in exchange.replies:
        parts.extend(_answer(reply, f"{level}#"))
    return parts


def _answer(reply: Reply, level: str) -> list[str]:
    parts = [f"{level} filter {one_line(reply.name)}"] if reply.name else []
    parts.append(sanitise(reply.text).strip() or "(no answer)")
    if reply.mark:
        parts.append(f"*{one_line(reply.mark)}*")
    if reply.answer is not None and reply.answer.part is not None:
        parts.append(f"From {one_line(reply.answer.part.label)}.")
    passages = reply.answer.passages if reply.answer else ()
    if passages:
        parts.append("Related passages:")
    parts.extend(_passage(passage) for passage in passages)
    return parts


def _passage(passage: Passage) -> str:
    place = ", ".join(part for part in (f"¶ {passage.number}", place_of(passage)) if part)
    label = f"**{place}**" + (" ✓ quote" if passage.quoted else "")
    return "\n".join(f"> {line}".rstrip() for line in [label, "", *sanitise(passage.text).split("\n")])


def place_of(passage: Passage) -> str:
    """The page or chapter of a passage, "" when the document has none."""
    return one_line(passage.place or passage.heading or "")


def write_new(path: Path, text: str) -> None:
    """Write a file that does not exist yet, whole or not at all.

    Raises UsageError when the file exists, DiskError when it cannot be written.
    """
    from longmamba_mlx.storage.atomic import write_text  # with hashlib and secrets: the first frame needs neither

    if path.exists():
        raise UsageError(f"{path} exists already", hint="Choose another name: nothing is overwritten.")
    write_text(path, text)
