"""The pages people read, and what they are told to type there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "docs" / "tutorial.md",  # first: its commands build on each other
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name != "tutorial.md"),
]
INLINE = re.compile(r"`(longmamba-mlx(?: [^`]+)?)`")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language on a page."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def shell_lines(page: Path) -> list[str]:
    """The command lines of a page's shell blocks, without comments and prompts."""
    lines = [re.sub(r"\s+#\s.*", "", line).strip() for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def inline_commands(page: Path) -> list[str]:
    """The command lines inside a page's sentences and tables."""
    return [match[1].replace("\\|", "|") for match in INLINE.finditer(page.read_text(encoding="utf-8"))]


def name_of(page: Path) -> str:
    """A page as the tests call it: "docs/chat.md"."""
    return page.relative_to(ROOT).as_posix()
