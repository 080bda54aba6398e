"""What README and docs/ tell people to type: Python blocks run, command lines name commands and options that exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

import longmamba_mlx
from longmamba_mlx.builtin import sample_document
from tests.examples.pages import PAGES, ROOT, blocks, name_of

LINE = re.compile(r"^ *(?:\$ )?(?:pip install \S+ && |cat \S+ \| |\w+=\S+ )*longmamba-mlx ([^#`\n|>]+)", re.MULTILINE)
INLINE = re.compile(r"`longmamba-mlx ([^`]+)`")
# Parsed by hand before Typer, or shown with places to fill in.
FILE_FIRST = re.compile(r"^[A-Z]+…?$|^\S+\.\w+$")


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
        found += [(name_of(page), match[1].strip()) for pattern in (LINE, INLINE) for match in pattern.finditer(text)]
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


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs both make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http", "mailto")):
            continue
        file, _, anchor = target.partition("#")
        there = page.parent / file if file else page
        assert there.exists(), f"{name_of(page)}: {target}"
        assert not anchor or anchor in anchors(there), f"{name_of(page)}: {target} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_named_in_text_exist(page: Path) -> None:
    """`docs/x.md`, `tests/x.py` and their like: paths from the repository's root, or from the package's."""
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|md|metal|c|yml))`", text):
        if "NAME" not in path and page.name != "CHANGELOG.md":
            assert any((root / path).exists() for root in (ROOT, ROOT / "longmamba_mlx", page.parent)), path


NEEDS_A_DOWNLOAD = "state-spaces/"
PYTHON = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.parametrize("page", PYTHON, ids=name_of)
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    """All blocks of a page as one program, beside a file called book.txt."""
    code = "\n".join(blocks(page, "python"))
    if NEEDS_A_DOWNLOAD in code:
        compile(code, page.name, "exec")
        for name in re.findall(r"\blm\.(\w+)", code):
            assert hasattr(longmamba_mlx, name), name
        return
    (tmp_path / "book.txt").write_bytes(sample_document().read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_examples_run() -> None:
    for path in sorted((ROOT / "examples").glob("*.py")):
        done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=120, check=False,
                              env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
        assert done.returncode == 0 and done.stdout, f"{path.name}: {done.stderr}"
