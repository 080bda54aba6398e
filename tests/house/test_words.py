"""Plain English: phrases that docs/words.md advises against, in the pages and in docstrings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RIDDLES = re.compile(
    r"\b(somebody|whoever|what there is of|go(?:es)? on with (?:it|them)|gone on with|is told of|are told of|"
    r"hears? of|given? away|no sound (?:JSON|file)|(?<!there )is no (?:size|number|list|table|file|folder)|put by)\b",
    re.IGNORECASE,
)


def pages() -> Iterator[tuple[str, str]]:
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        if path.name != "words.md":
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def docstrings() -> Iterator[tuple[str, str]]:
    folders = ("longmamba_mlx", "tui", "convert", "metal_kernels")  # the last three are linked into the first
    for path in (path for folder in folders for path in sorted((ROOT / folder).glob("**/*.py"))):
        yield from (
            (path.relative_to(ROOT).as_posix(), ast.get_docstring(node) or "")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        )


def test_pages_and_docstrings_are_plain() -> None:
    found = [f"{where}: {match[0]!r}" for where, text in [*pages(), *docstrings()] for match in RIDDLES.finditer(text)]
    assert not found, "\n".join(["see docs/words.md:", *found])


def test_riddles_are_noticed() -> None:
    assert RIDDLES.search("Ctrl-C ends it with what there is of the answer") and RIDDLES.search("'x' is no size")
    assert not RIDDLES.search("there is no file") and not RIDDLES.search("nobody has run it on a Mac")
