"""A wheel must hold every package and every data file: setuptools leaves out what is not listed, silently."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from longmamba_mlx import __version__

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LINKS = {"tui": "tui", "conversion": "convert", "metal_kernels": "metal_kernels"}
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


@pytest.mark.parametrize(("link", "folder"), LINKS.items())
def test_the_outer_folders_are_packages_of_the_one_package(link: str, folder: str) -> None:
    assert (ROOT / "longmamba_mlx" / link).resolve() == ROOT / folder


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    copy = tmp_path / "checkout"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    expected = set()
    for name in filter(None, names.split("\0")):
        source, target = ROOT / name, copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.is_file() and not name.startswith("tests/"):
            target.write_bytes(source.read_bytes())
            top, _, rest = name.partition("/")
            inside = {folder: f"longmamba_mlx/{link}" for link, folder in LINKS.items()} | {"longmamba_mlx": top}
            if top in inside:
                expected.add(f"{inside[top]}/{rest}")
    subprocess.run([sys.executable, "-c", BUILD, str(tmp_path)], cwd=copy, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert found == expected
    assert wheel.name.startswith(f"longmamba_mlx-{__version__}-")
    assert wheel.stat().st_size < 8_000_000


def test_the_bundle_starts_this_version_and_names_every_tool(tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    from longmamba_mlx.interfaces import mcp_server
    from longmamba_mlx.interfaces.engine import Engine
    from longmamba_mlx.interfaces.folders import Folders
    from longmamba_mlx.interfaces.library import Library

    target = tmp_path / "bundle.mcpb"
    subprocess.run([sys.executable, str(ROOT / "packaging" / "make_mcpb.py"), str(target)], check=True)
    manifest = json.loads(zipfile.ZipFile(target).read("manifest.json"))
    assert f"longmamba-mlx[mcp]=={__version__}" in manifest["server"]["mcp_config"]["args"]
    server = mcp_server.Server(Library(lambda: pytest.fail("loaded"), Folders(None), name="demo"), Engine(), "0")
    assert {tool["name"] for tool in manifest["tools"]} == {tool.name for tool in asyncio.run(server.list_tools())}


def test_the_version_is_the_same_everywhere() -> None:
    assert "version" not in PROJECT["project"] and PROJECT["project"]["dynamic"] == ["version"]
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    formula = (ROOT / "packaging" / "homebrew" / "longmamba-mlx.rb").read_text(encoding="utf-8")
    assert f"longmamba_mlx-{__version__}.tar.gz" in formula
    released = re.search(r"^## (\d\S+) - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert released is not None and released[1] == __version__
