"""What README and docs/ tell people to type: Python blocks run, command lines name commands and options that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from longmamba_mlx.builtin import sample_document

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
LINE = re.compile(r"^ *(?:\$ )?(?:pip install \S+ && |cat \S+ \| |\w+=\S+ )*longmamba-mlx ([^#`\n|>]+)", re.MULTILINE)
INLINE = re.compile(r"`longmamba-mlx ([^`]+)`")
# Parsed by hand before Typer, or shown with places to fill in.
FILE_FIRST = re.compile(r"^[A-Z]+$|^\S+\.\w+$")


def commands() -> dict[str, set[str]]:
    """Every command, "states ls" too, with its options."""
    from longmamba_mlx.cli.app import app

    found: dict[str, set[str]] = {}

    def walk(command: Any, path: tuple[str, ...]) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, (*path, name))
        options = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
        found[" ".join(path)] = {option for option in options if option.startswith("-")} | {"--help"}

    walk(typer.main.get_command(app), ())
    return found


KNOWN = commands()


def lines() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found += [(page.name, match[1].strip()) for pattern in (LINE, INLINE) for match in pattern.finditer(text)]
    return sorted({(page, line) for page, line in found if line})


@pytest.mark.parametrize(("page", "line"), lines())
def test_command_lines_name_what_exists(page: str, line: str) -> None:
    words = line.replace("\\|", "|").split()
    if FILE_FIRST.match(words[0]) and words[0] not in KNOWN:
        return  # longmamba-mlx book.txt
    path = next((" ".join(words[:depth]) for depth in (2, 1) if " ".join(words[:depth]).split("|")[0] in KNOWN), "")
    for alternative in path.split()[-1].split("|") if path else words[0].split("|"):
        name = " ".join([*path.split()[:-1], alternative])
        assert name in KNOWN, f"{page}: there is no command {name!r}"
        used = {word.strip("[],.").split("=")[0] for word in words if word.strip("[").startswith("-") and len(word) > 1}
        assert {option for option in used if not re.fullmatch(r"-\d.*", option)} <= KNOWN[name] | {"--"}, (
            f"{page}: {line}"
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "#", "mailto")):
            assert (page.parent / target.split("#")[0]).exists(), f"{page.name}: {target}"


def test_the_python_of_readme_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "book.txt").write_bytes(sample_document().read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "book.state").exists()
