"""Who may import whom, read from the sources themselves: all imports, also inside functions and under TYPE_CHECKING."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINKS = {"conversion": "convert", "metal_kernels": "metal_kernels", "tui": "tui"}
# From the ground up: a package may import itself and the rows before its own. docs/architecture.md draws this table.
FLOORS = (
    ("errors",),
    ("events", "ground", "paths", "system", "builtin", "metal_kernels"),
    ("storage", "ops", "documents"),
    ("filtering", "models", "tokenization", "retrieval"),
    ("inference",),
    ("states", "conversion"),
    ("registry",),
    ("session",),
    ("evaluation",),
    ("bench", "interfaces", "tui"),
    ("cli",),
    ("", "__main__"),  # the public names of longmamba_mlx/__init__.py, and `python -m longmamba_mlx`
)
FLOOR = {package: floor for floor, packages in enumerate(FLOORS) for package in packages}
BANNED = {"torch", "pickle", "dill", "marshal", "shelve", "tensorflow"}
PEERS = {"bench.engines": {"torch"}}  # measured beside this package where it is installed, never needed


@cache
def sources() -> dict[str, Path]:
    """Module names inside the package, without "longmamba_mlx.", and their files."""
    folders = {"longmamba_mlx": (), **{folder: (package,) for package, folder in LINKS.items()}}
    found = {}
    for folder, prefix in folders.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = (*prefix, *path.relative_to(ROOT / folder).with_suffix("").parts)
            if folder != "longmamba_mlx" or parts[0] not in LINKS:
                found[".".join(part for part in parts if part != "__init__")] = path
    return found


@cache
def imports(module: str) -> frozenset[str]:
    """Full names of what a module imports, as deep as a module of this package goes."""
    names: set[str] = set()
    path = sources()[module]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            full = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            names |= {
                name if name.removeprefix("longmamba_mlx.") in sources() else str(node.module) for name in full.values()
            }
    return frozenset(names)


def inside(module: str) -> set[str]:
    """The modules of this package that a module imports."""
    found = {
        name.removeprefix("longmamba_mlx").lstrip(".") for name in imports(module) if name.startswith("longmamba_mlx")
    }
    return found - {module}


@pytest.mark.parametrize("package", sorted({name.split(".")[0] for name in sources()}))
def test_imports_point_downwards(package: str) -> None:
    upwards = [
        f"{module} -> {target}"
        for module in sources()
        if module.split(".")[0] == package
        for target in inside(module)
        if target.split(".")[0] != package and FLOOR[target.split(".")[0]] >= FLOOR[package]
        if (module, target) != ("cli.app", "")  # the version number
    ]
    assert not upwards


def test_no_module_imports_what_is_banned_or_a_folder_by_its_outer_name() -> None:
    wrong = {
        module: banned
        for module in sources()
        if (
            banned := {name.split(".")[0] for name in imports(module)}
            & (BANNED - PEERS.get(module, set()) | set(LINKS.values()))
        )
    }
    assert not wrong


def test_there_are_no_circles() -> None:
    """Modules that import each other, however far around; a package's own __init__ is a module like any other."""
    reach: dict[str, set[str]] = {}
    for start in sources():
        seen: set[str] = set()
        todo = [start]
        while todo:
            for target in inside(todo.pop()) & set(sources()) - {""}:
                if target not in seen:
                    seen.add(target)
                    todo.append(target)
        reach[start] = seen
    assert not sorted(module for module, seen in reach.items() if module in seen)


def test_every_package_has_its_floor() -> None:
    assert {name.split(".")[0] for name in sources()} <= set(FLOOR)


def test_the_figure_in_the_docs_shows_the_same_floors() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    figure = text.partition("<!-- floors -->")[2].partition("<!-- /floors -->")[0]
    rows = {int(line[:2]): re.split(" {2,}", line[4:])[0] for line in figure.splitlines() if line[:2].strip().isdigit()}
    assert rows == {floor: " · ".join(name or "__init__" for name in names) for floor, names in enumerate(FLOORS)}


def test_few_modules_lie_outside_the_packages() -> None:
    assert len(list((ROOT / "longmamba_mlx").glob("*.py"))) <= 12
    assert len(list((ROOT / "tui").glob("*.py"))) <= 10


def test_public_names_and_import_time() -> None:
    code = (
        "import time; s = time.process_time(); import longmamba_mlx as lm; t = time.process_time() - s\n"
        "import sys; heavy = {'mlx', 'numpy', 'textual', 'transformers', 'typer', 'tokenizers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert lm.ops.selective_scan and lm.load and lm.Document and lm.calibrate and callable(lm.convert)\n"
        "import longmamba_mlx.conversion\n"
        "assert callable(lm.convert) and set(lm.__all__) <= set(dir(lm))\n"
        "print(t)"
    )
    best = min(
        float(subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout)
        for _ in range(3)
    )
    assert best < 0.15
