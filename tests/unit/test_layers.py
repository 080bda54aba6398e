"""Who may import whom, read from the sources themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"convert": "convert", "metal_kernels": "metal_kernels", "tui": "tui"}
BANNED = {"torch", "pickle", "dill", "marshal", "shelve", "tensorflow"}
PEERS = {"bench.engines": {"torch"}}  # measured beside this package where it is installed, never needed
# What the modules whose name begins with the key may import of this package; None: everything.
ALLOWED: dict[str, set[str] | None] = {
    "metal_kernels": {"metal_kernels"},
    "ops": {"ops", "metal_kernels", "errors"},
    "models": {"models", "ops", "config", "configs", "errors", "boundedjson"},
    "configs": {"configs", "errors", "boundedjson"},
    "longmamba": {"longmamba", "errors", "safeio", "boundedjson"},
    "documents": {"documents", "errors"},
    "errors": set(),
    "memory": set(),
    "paths": {"errors"},
    "events": set(),
    "largetext": {"documents", "errors"},
    "passagefile": {"documents", "errors", "largetext", "paths", "safeio"},
    "passages": {"documents", "events", "largetext", "passagefile"},
    "ahead": {"ops"},
    "reading": {"ahead", "errors", "keptcounts", "layerwise", "longmamba", "memory", "models", "textmap"},
    "layerwise": {"keptcounts", "longmamba", "models", "textmap"},
    "answering": {"ahead", "models", "errors"},
    "tokenizer": {"documents", "errors", "tokenstream"},
    "tokenstream": set(),
    "spool": set(),
    "textmap": {"events"},
    "keptcounts": {"textmap"},
    "counting": {"errors", "spool", "textmap", "tokenizer"},
    "chattemplate": {"prompts"},
    "templateworker": set(),
    "prompts": {"errors"},
    "tui": {"tui", "session", "errors", "documents", "paths", "catalogue", "checkpoints"},
}


def sources() -> dict[str, Path]:
    """Module names inside the package, without "longmamba_mlx.", and their files."""
    found = {}
    for top in ("longmamba_mlx", *FOLDERS):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts[1:] if top == "longmamba_mlx" else parts
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names |= {f"{module}.{alias.name}" for alias in node.names} if module == "longmamba_mlx" else {module}
    return names


@pytest.mark.parametrize("module", sorted(sources()))
def test_imports_follow_the_layers(module: str) -> None:
    found = imports(sources()[module])
    banned = (BANNED - PEERS.get(module, set())) | set(FOLDERS)
    assert not {name.split(".")[0] for name in found} & banned, "banned, or not by its full name"
    inside = {name.removeprefix("longmamba_mlx.").split(".")[0] for name in found if name.startswith("longmamba_mlx.")}
    allowed = ALLOWED.get(module.split(".")[0])
    if allowed is not None:
        assert inside <= allowed, f"{module} imports {sorted(inside - allowed)}"
    if module.split(".")[0] not in ("tui", "cli", "__main__", ""):
        assert not inside & {"tui", "cli"}, f"{module} imports a face of the program"


def test_rules_name_modules_that_exist() -> None:
    names = {name.split(".")[0] for name in sources()}
    assert set(ALLOWED) <= names


def test_public_names_and_import_time() -> None:
    code = (
        "import time; s = time.perf_counter(); import longmamba_mlx as lm; t = time.perf_counter() - s\n"
        "import sys; heavy = {'mlx', 'numpy', 'textual', 'transformers', 'typer', 'tokenizers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert lm.ops.selective_scan and lm.load and lm.Document and lm.calibrate and callable(lm.convert)\n"
        "import longmamba_mlx.convert\n"
        "assert callable(lm.convert) and set(lm.__all__) <= set(dir(lm))\n"
        "print(t)"
    )
    best = min(
        float(subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout)
        for _ in range(3)
    )
    assert best < 0.15
